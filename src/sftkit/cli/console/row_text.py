"""The text of rows, styled: trained tokens, special tokens, and characters that were escaped.

Text from the data is never parsed as markup: it is escaped (`core/escape.py`) and put into `Text` objects.
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
"""Without colours: around trained tokens, and before a token whose label is another token."""


def running_text(row: ShownRow, start: int, stop: int, *, marks: bool, whitespace: bool) -> Text:
    """Return the text of tokens [start, stop) of a row whose turns are unknown."""
    if row.text is None:
        return _marked(list(segments(row, start, stop)), row, marks=marks, whitespace=whitespace)
    body = Text()
    _append(body, row.text, Style(), whitespace=whitespace, reserved="")
    return body


def turn_text(row: ShownRow, turn: Turn, *, marks: bool, whitespace: bool) -> Text:
    """Return the text of a turn without its last line end, which printing adds."""
    body = _marked(list(segments(row, turn.start, turn.stop)), row, marks=marks, whitespace=whitespace)
    if body.plain.endswith("\n"):
        body.right_crop(1)
    return body


def _marked(part: Sequence[TextSegment], row: ShownRow, *, marks: bool, whitespace: bool) -> Text:
    """Join segments of a row, with marks around trained tokens if there are no colours."""
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
        body.append(f"<{segment.text}>", style)  # ids that are not in the vocabulary
    else:
        body.append(segment.text if first else f" {segment.text}", style)


def _append(body: Text, text: str, style: Style, *, whitespace: bool, reserved: str) -> None:
    for part in visible_parts(text, whitespace=whitespace, reserved=reserved):
        body.append(part.text, style + _ALTERED if part.altered else style)
