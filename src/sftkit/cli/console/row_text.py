"""The text of rows, styled: trained tokens, special tokens, and characters that were escaped.

Text from the data is never parsed as markup: it is escaped (`core/escape.py`) and put into `Text` objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from sftkit.core.escape import visible_parts
from sftkit.core.token_kinds import TokenKind
from sftkit.inspection.view.shown_row import ShownRow, TextSegment, segments
from sftkit.inspection.view.turns import Turn

TRAINED = Style(color="green")
_CONTENT = TokenKind.CONTENT.label
KIND_STYLES = {
    TokenKind.CONTENT.label: TRAINED,
    TokenKind.REASONING.label: Style(color="cyan"),
    TokenKind.TOOL_CALL.label: Style(color="bright_blue"),
    TokenKind.STOP.label: Style(color="yellow"),
}
UNTRAINED = Style(dim=True)
SPECIAL = Style(bold=True, reverse=True)
WRONG = Style(color="red", bold=True, underline=True)
_ALTERED = Style(color="magenta")

OPEN, CLOSE, WRONG_MARK = "⟦", "⟧", "≠"
"""Without colours: around trained tokens, and before a token whose label is another token."""

OPEN_KIND, CLOSE_KIND = "⟪", "⟫"
"""Without colours: around the name of the kind of the trained tokens that follow."""


def has_kinds(row: ShownRow) -> bool:
    """Return whether the kinds of a row's trained tokens are known."""
    return any(token.kind is not None for token in row.tokens)


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
    """Join segments of a row, with marks around trained tokens and before each kind of them if there are no colours.

    Trained tokens begin as content, which needs no mark there.
    """
    body = Text()
    decoded = any(token.text is not None for token in row.tokens)
    reserved = (OPEN + CLOSE if marks else "") + (OPEN_KIND + CLOSE_KIND if marks and has_kinds(row) else "")
    inside = False
    kind: str | None = _CONTENT
    for segment in part:
        if marks and inside != bool(segment.trained):
            inside, kind = bool(segment.trained), _CONTENT
            body.append(OPEN if inside else CLOSE)
        if marks and segment.kind not in (kind, None):
            kind = segment.kind
            body.append(f"{OPEN_KIND}{kind}{CLOSE_KIND}")
        if marks and segment.wrong:
            body.append(WRONG_MARK)
        _append_segment(
            body, segment, first=segment is part[0], decoded=decoded, reserved=reserved, whitespace=whitespace
        )
    body.append(CLOSE if inside else "")
    return body


def _append_segment(
    body: Text, segment: TextSegment, *, first: bool, decoded: bool, reserved: str, whitespace: bool
) -> None:
    style = Style() if segment.trained is None else UNTRAINED
    if segment.trained:
        style = KIND_STYLES.get(segment.kind or _CONTENT, TRAINED)
    if segment.special:
        style += SPECIAL
    if segment.wrong:
        style += WRONG
    if segment.known:
        _append(body, segment.text, style, whitespace=whitespace, reserved=reserved)
    elif decoded:
        body.append(f"<{segment.text}>", style)  # ids that are not in the vocabulary
    else:
        body.append(segment.text if first else f" {segment.text}", style)


def _append(body: Text, text: str, style: Style, *, whitespace: bool, reserved: str) -> None:
    for part in visible_parts(text, whitespace=whitespace, reserved=reserved):
        body.append(part.text, style + _ALTERED if part.altered else style)
