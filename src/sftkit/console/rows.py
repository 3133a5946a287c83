"""Rows of inspect-shards on the screen: turn by turn, coloured or marked, with every finding where it is.

What comes from data is never markup: it is escaped (see `inspection.visible`) and put into Text objects. Text of turns
is moved in, so that no line of the data can pass for one of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.style import Style
from rich.text import Text

from sftkit.audit.findings import RULES
from sftkit.console.lines import level_style, note_of, percent, print_text
from sftkit.inspection.row_findings import WHOLE, RowFinding
from sftkit.inspection.rows import Segment, ShownRow, segments
from sftkit.inspection.turns import Turn
from sftkit.inspection.visible import one_line, visible

_TRAINED = Style(color="green")
_UNTRAINED = Style(dim=True)
_SPECIAL = Style(bold=True, reverse=True)
_WRONG = Style(color="red", bold=True, underline=True)
_ALTERED = Style(color="magenta")
_HEADING = Style(bold=True)
_PLAIN = Style(bold=False)

_OPEN, _CLOSE, _WRONG_MARK = "⟦", "⟧", "≠"
_TEXT, _FINDING = 4, 2
"""Columns from the left."""

_LISTED = 3
"""Findings of one rule that are shown of one turn; JSON has all of them."""

_QUOTED = 40
"""Characters of a finding's tokens that are shown."""


def print_rows(rows: Sequence[ShownRow], console: Console, *, whitespace: bool) -> None:
    """Print rows: a title each, then their turns.

    Where the console has no colour, marks tell trained tokens from the others.

    Args:
        rows: what is shown.
        console: where.
        whitespace: make spaces, tabs and line ends visible.
    """
    marks = console.no_color or console.color_system is None
    if any(row.trained_tokens is not None for row in rows):
        print_text(console, Text("\n"), _legend(rows, marks=marks))
    for row in rows:
        _print_head(row, console)
        if not row.turns:
            print_text(console, _running_text(row, marks=marks, whitespace=whitespace))
        for number, turn in enumerate(row.turns):
            if row.seq_lengths and (not number or row.turns[number - 1].sequence != turn.sequence):
                print_text(console, _sequence_line(turn.sequence, row))
            print_text(console, _turn_line(number, turn))
            print_text(console, _turn_text(row, turn, marks=marks, whitespace=whitespace), indent=_TEXT)
            _print_findings([found for found in row.findings if found.turn == number], row, console)


def _legend(rows: Sequence[ShownRow], *, marks: bool) -> Text:
    wrong = any(token.label is not None for row in rows for token in row.tokens)
    if marks:
        text = f"{_OPEN}trained{_CLOSE}: these tokens carry a loss; everything else carries none"
        return Text(text + (f"; {_OPEN}{_WRONG_MARK}...{_CLOSE}: their label is another token" if wrong else ""))
    legend = Text.assemble(("trained", _TRAINED), " ", ("not trained", _UNTRAINED), " ", ("special token", _SPECIAL))
    return Text.assemble(legend, " ", ("label is another token", _WRONG)) if wrong else legend


# --- lines of ours


def _print_head(row: ShownRow, console: Console) -> None:
    """The title, with all that is to say about the row as a whole."""
    print_text(console, Text("\n"), _title(row))
    for note in row.notes:
        print_text(console, note_of(note))
    _print_findings([found for found in row.findings if found.turn is None], row, console)
    print_text(console, Text(""))


def _title(row: ShownRow) -> Text:
    unit = "characters" if row.text is not None else "tokens"
    title = Text(f"{row.split} row {row.row:,}", style=_HEADING)
    title.append(f" ({one_line(row.shard)} row {row.shard_row:,}): {row.length:,} {unit}", style=_PLAIN)
    if row.trained_tokens is not None:
        title.append(f", {row.trained_tokens:,} trained{percent(row.trained_share)}", style=_PLAIN)
    if row.seq_lengths:
        title.append(f", {len(row.seq_lengths):,} sequences", style=_PLAIN)
    return title


def _sequence_line(sequence: int, row: ShownRow) -> Text:
    return Text(f"--- sequence {sequence + 1} of {len(row.seq_lengths)}", style=_HEADING)


def _turn_line(number: int, turn: Turn) -> Text:
    size = turn.stop - turn.start
    line = Text(f"[{number + 1}]", style=_HEADING)
    line.append(f" {one_line(turn.role)}:" if turn.role is not None else "", style=_HEADING)
    line.append(f" {size:,} token{'s' if size > 1 else ''}", style=_PLAIN)
    line.append(f", {turn.trained_tokens:,} trained" if turn.trained_tokens else "", style=_PLAIN)
    return line


def _print_findings(findings: Sequence[RowFinding], row: ShownRow, console: Console) -> None:
    """One line each; of many of one rule the first, and how many more there are."""
    counts = Counter(found.rule for found in findings)
    shown: Counter[str] = Counter()
    for found in findings:
        shown[found.rule] += 1
        if shown[found.rule] <= _LISTED:
            print_text(console, _finding_line(found, row), indent=_FINDING)
        elif shown[found.rule] == counts[found.rule]:
            more = counts[found.rule] - _LISTED
            print_text(
                console, Text(f"{found.level}: {found.rule}, {more:,} more in this turn", "dim"), indent=_FINDING
            )


def _finding_line(found: RowFinding, row: ShownRow) -> Text:
    line = Text(f"{found.level}: {found.rule}", level_style(found.level))
    if found.rule not in WHOLE:
        line.append(f", {_where(found, row)}")
    line.append(f": {RULES[found.rule].what}", style="default")
    return line


def _where(found: RowFinding, row: ShownRow) -> str:
    """The tokens that a finding is about: their positions and their text."""
    tokens = row.tokens[found.start : found.stop]
    if len(tokens) == 1:
        name = f"token {found.start:,}"
        return f"{name} {_quoted(tokens[0].text)}" if tokens[0].text else f"{name} (id {tokens[0].id})"
    text = "".join(token.text if token.text is not None else f"<{token.id}>" for token in tokens)
    return f"tokens {found.start:,} to {found.stop - 1:,} {_quoted(text)}"


def _quoted(text: str) -> str:
    if len(text) > _QUOTED:
        text = f"{text[: _QUOTED // 2]} ... {text[-_QUOTED // 2 :]}"
    return f'"{one_line(text, reserved=_OPEN + _CLOSE)}"'


# --- text of the data


def _running_text(row: ShownRow, *, marks: bool, whitespace: bool) -> Text:
    """A row whose turns nobody can tell."""
    if row.text is not None:
        body = Text()
        _append(body, row.text, Style(), whitespace=whitespace, reserved="")
        return body
    body = Text()
    parts: list[list[Segment]] = []
    for segment in segments(row):
        if not parts or parts[-1][-1].sequence != segment.sequence:
            parts.append([])
        parts[-1].append(segment)
    for number, part in enumerate(parts):
        if number:
            body.append_text(Text.assemble("\n", _sequence_line(part[0].sequence, row), "\n"))
        body.append_text(_marked(part, row, marks=marks, whitespace=whitespace))
    return body


def _turn_text(row: ShownRow, turn: Turn, *, marks: bool, whitespace: bool) -> Text:
    """The text of a turn; the line end that it may end with is the one before the next turn's line."""
    body = _marked(list(segments(row, turn.start, turn.stop)), row, marks=marks, whitespace=whitespace)
    if body.plain.endswith("\n"):
        body.right_crop(1)
    return body


def _marked(part: Sequence[Segment], row: ShownRow, *, marks: bool, whitespace: bool) -> Text:
    """Some segments of a row, with marks around what is trained where colours cannot tell."""
    body = Text()
    decoded = any(token.text is not None for token in row.tokens)
    inside = False
    for segment in part:
        if marks and inside != bool(segment.trained):
            inside = bool(segment.trained)
            body.append(_OPEN if inside else _CLOSE)
        if marks and segment.wrong:
            body.append(_WRONG_MARK)
        _append_segment(body, segment, decoded=decoded, marks=marks, whitespace=whitespace)
    body.append(_CLOSE if inside else "")
    return body


def _append_segment(body: Text, segment: Segment, *, decoded: bool, marks: bool, whitespace: bool) -> None:
    style = Style() if segment.trained is None else _TRAINED if segment.trained else _UNTRAINED
    if segment.special:
        style += _SPECIAL
    if segment.wrong:
        style += _WRONG
    if segment.known:
        _append(body, segment.text, style, whitespace=whitespace, reserved=_OPEN + _CLOSE if marks else "")
    elif decoded:
        body.append(f"<{segment.text}>", style)  # ids that the tokenizer does not have
    else:
        body.append(f" {segment.text}" if segment.start else segment.text, style)


def _append(body: Text, text: str, style: Style, *, whitespace: bool, reserved: str) -> None:
    for part in visible(text, whitespace=whitespace, reserved=reserved):
        body.append(part.text, style + _ALTERED if part.altered else style)
