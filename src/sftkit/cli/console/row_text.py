"""The text of rows on the screen: what is trained, what is special, what was altered to be seen.

What comes from data is never markup: it is escaped (see `inspection.visible`) and put into Text objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from sftkit.core.escape import visible_parts
from sftkit.inspection.view.shown_row import ShownRow, TextSegment, segments
from sftkit.inspection.view.turns import Turn

TRAINED = Style(color="green")
UNTRAINED = Style(dim=True)
SPECIAL = Style(bold=True, reverse=True)
WRONG = Style(color="red", bold=True, underline=True)
_ALTERED = Style(color="magenta")

OPEN, CLOSE, WRONG_MARK = "⟦", "⟧", "≠"
"""Around what is trained, and before what has the label of another token, where there are no colours."""


def running_text(row: ShownRow, start: int, stop: int, *, marks: bool, whitespace: bool) -> Text:
    """What stands in a row, or in a part of it, whose turns nobody can tell."""
    if row.text is None:
        return _marked(list(segments(row, start, stop)), row, marks=marks, whitespace=whitespace)
    body = Text()
    _append(body, row.text, Style(), whitespace=whitespace, reserved="")
    return body


def turn_text(row: ShownRow, turn: Turn, *, marks: bool, whitespace: bool) -> Text:
    """The text of a turn; the line end that it may end with is the one before the next turn's line."""
    body = _marked(list(segments(row, turn.start, turn.stop)), row, marks=marks, whitespace=whitespace)
    if body.plain.endswith("\n"):
        body.right_crop(1)
    return body


def _marked(part: Sequence[TextSegment], row: ShownRow, *, marks: bool, whitespace: bool) -> Text:
    """Some segments of a row, with marks around what is trained where colours cannot tell."""
    body = Text()
    decoded = any(token.text is not None for token in row.tokens)
    inside = False
    for segment in part:
        if marks and inside != bool(segment.trained):
            inside = bool(segment.trained)
            body.append(OPEN if inside else CLOSE)
        if marks and segment.wrong:
            body.append(WRONG_MARK)
        _append_segment(body, segment, first=segment is part[0], decoded=decoded, marks=marks, whitespace=whitespace)
    body.append(CLOSE if inside else "")
    return body


def _append_segment(
    body: Text, segment: TextSegment, *, first: bool, decoded: bool, marks: bool, whitespace: bool
) -> None:
    style = Style() if segment.trained is None else TRAINED if segment.trained else UNTRAINED
    if segment.special:
        style += SPECIAL
    if segment.wrong:
        style += WRONG
    if segment.known:
        _append(body, segment.text, style, whitespace=whitespace, reserved=OPEN + CLOSE if marks else "")
    elif decoded:
        body.append(f"<{segment.text}>", style)  # ids that the tokenizer does not have
    else:
        body.append(segment.text if first else f" {segment.text}", style)


def _append(body: Text, text: str, style: Style, *, whitespace: bool, reserved: str) -> None:
    for part in visible_parts(text, whitespace=whitespace, reserved=reserved):
        body.append(part.text, style + _ALTERED if part.altered else style)
