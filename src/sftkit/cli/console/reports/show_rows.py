"""Prints the rows of `inspect-shards` turn by turn, in colours or with marks, with the findings of each turn.

The text of turns is indented, so that no line of the data can be mistaken for one of the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from rich.console import Console
from rich.style import Style
from rich.text import Text

from sftkit.audit.findings import RULES
from sftkit.cli.console.row_text import (
    CLOSE,
    CLOSE_KIND,
    KIND_STYLES,
    OPEN,
    OPEN_KIND,
    SPECIAL,
    TRAINED,
    UNTRAINED,
    WRONG,
    WRONG_MARK,
    has_kinds,
    running_text,
    turn_text,
)
from sftkit.cli.console.text_lines import level_style, note_of, percent, print_text
from sftkit.core.escape import escape_to_one_line
from sftkit.inspection.view.row_findings import WHOLE_ROW_RULES, RowFinding
from sftkit.inspection.view.shown_row import ShownRow, sequences_with_findings
from sftkit.inspection.view.turns import Turn

_HEADING = Style(bold=True)
_PLAIN = Style(bold=False)

_TEXT, _FINDING = 4, 2
"""Indentation in columns."""

_MAX_FINDINGS = 3
"""Findings of one rule that are shown per turn; JSON has all of them."""

_MAX_QUOTED = 40
"""Characters of a finding's tokens that are shown."""


def print_rows(rows: Sequence[ShownRow], console: Console, *, whitespace: bool) -> None:
    """Print a title and the turns of each row. Without colours, marks surround trained tokens.

    Args:
        rows: the rows.
        console: where to print.
        whitespace: make spaces, tabs and line ends visible.
    """
    marks = console.no_color or console.color_system is None
    if any(row.trained_tokens is not None for row in rows):
        print_text(console, Text("\n"), _legend(rows, marks=marks))
    for row in rows:
        _print_head(row, console)
        if row.seq_lengths:
            _print_pack(row, console, marks=marks, whitespace=whitespace)
        else:
            _print_part(row, 0, row.length, console, marks=marks, whitespace=whitespace)


def _print_pack(row: ShownRow, console: Console, *, marks: bool, whitespace: bool) -> None:
    """Print the selected sequences of a pack, and one line for those between them."""
    bounds = [0, *accumulate(row.seq_lengths)]
    done = 0
    for number in row.on_page:
        if number > done:
            print_text(console, _gap_line(row, done, number, bounds), Text("\n"))
        print_text(console, _sequence_line(row, number, bounds))
        _print_part(row, bounds[number], bounds[number + 1], console, marks=marks, whitespace=whitespace)
        done = number + 1
        if done < len(bounds) - 1:
            print_text(console, Text(""))
    if done < len(bounds) - 1:
        hint = Text("; use --row to show the whole pack", style=UNTRAINED)
        print_text(console, _gap_line(row, done, len(bounds) - 1, bounds), hint)


def _print_part(row: ShownRow, start: int, stop: int, console: Console, *, marks: bool, whitespace: bool) -> None:
    """Print tokens [start, stop) of a row, turn by turn if the turns are known, numbered from 1."""
    if not row.turns:
        print_text(console, running_text(row, start, stop, marks=marks, whitespace=whitespace))
        weights = _weights_in(row, start, stop)
        if weights:
            print_text(console, Text(weights.removeprefix(", "), style=UNTRAINED))
        return
    inside = (number for number, turn in enumerate(row.turns) if start <= turn.start < stop)
    for shown, number in enumerate(inside, start=1):
        turn = row.turns[number]
        print_text(console, _turn_line(shown, turn, row))
        print_text(console, turn_text(row, turn, marks=marks, whitespace=whitespace), indent=_TEXT)
        _print_findings([found for found in row.findings if found.turn == number], row, console)


def _legend(rows: Sequence[ShownRow], *, marks: bool) -> Text:
    wrong = any(token.is_mislabelled for row in rows for token in row.tokens)
    with_kinds = any(map(has_kinds, rows))
    if marks:
        text = f"{OPEN}trained{CLOSE}: these tokens carry a loss, all others carry none"
        if with_kinds:
            text += f"; {OPEN_KIND}kind{CLOSE_KIND}: the kind of those that follow, content where none is named"
        return Text(text + (f"; {OPEN}{WRONG_MARK}...{CLOSE}: their label is another token" if wrong else ""))
    trained = Text("trained", TRAINED)
    if with_kinds:
        trained = Text("trained: ").append_text(Text(" ").join(Text(*item) for item in KIND_STYLES.items()))
    legend = Text.assemble(trained, " ", ("not trained", UNTRAINED), " ", ("special token", SPECIAL))
    return Text.assemble(legend, " ", ("label is another token", WRONG)) if wrong else legend


def _print_head(row: ShownRow, console: Console) -> None:
    """Print the title of a row, and the notes and findings about the whole row."""
    print_text(console, Text("\n"), _title(row))
    for note in row.notes:
        print_text(console, note_of(note))
    _print_findings([found for found in row.findings if found.turn is None], row, console)
    print_text(console, Text(""))


def _title(row: ShownRow) -> Text:
    unit = "characters" if row.text is not None else "tokens"
    title = Text(f"{row.split} row {row.row:,}", style=_HEADING)
    title.append(f" ({escape_to_one_line(row.shard)} row {row.shard_row:,}): {row.length:,} {unit}", style=_PLAIN)
    if row.trained_tokens is not None:
        title.append(f", {row.trained_tokens:,} trained{percent(row.trained_tokens, row.length)}", style=_PLAIN)
    if row.seq_lengths:
        count = len(row.seq_lengths)
        title.append(f", {count:,} sequence{'' if count == 1 else 's'}", style=_PLAIN)
    elif row.sources:
        title.append(f", source {escape_to_one_line(row.sources[0])}", style=_PLAIN)
    return title


def _sequence_line(row: ShownRow, number: int, bounds: Sequence[int]) -> Text:
    size = row.seq_lengths[number]
    tokens = row.tokens[bounds[number] : bounds[number + 1]]
    line = Text(f"--- sequence {number + 1:,} of {len(row.seq_lengths):,}:", style=_HEADING)
    line.append(f" {_tokens(size)}", style=_PLAIN)
    if row.trained_tokens is not None:
        line.append(f", {sum(bool(token.trained) for token in tokens):,} trained", style=_PLAIN)
    if number < len(row.sources):
        line.append(f", source {escape_to_one_line(row.sources[number])}", style=_PLAIN)
    return line


def _gap_line(row: ShownRow, first: int, after: int, bounds: Sequence[int]) -> Text:
    """Return the line that stands for sequences [first, after), which are not shown."""
    name = f"sequence {after:,}" if after == first + 1 else f"sequences {first + 1:,} to {after:,}"
    line = Text(f"... {name}: {_tokens(bounds[after] - bounds[first])}", style=UNTRAINED)
    faulty = sum(first <= number < after for number in sequences_with_findings(row))
    line.append(f", {faulty:,} with findings" if faulty else "")
    return line


def _tokens(count: int) -> str:
    return f"{count:,} token{'' if count == 1 else 's'}"


def _turn_line(number: int, turn: Turn, row: ShownRow) -> Text:
    line = Text(f"[{number}]", style=_HEADING)
    line.append(f" {escape_to_one_line(turn.role)}:" if turn.role is not None else "", style=_HEADING)
    line.append(f" {_tokens(turn.stop - turn.start)}", style=_PLAIN)
    line.append(f", {turn.trained_tokens:,} trained" if turn.trained_tokens else "", style=_PLAIN)
    line.append(_weights_in(row, turn.start, turn.stop), style=_PLAIN)
    return line


def _weights_in(row: ShownRow, start: int, stop: int) -> str:
    """Return the loss weights of some tokens of a row in words; "" if all are 1."""
    weights = {token.weight for token in row.tokens[start:stop] if token.weight is not None}
    if weights <= {1.0}:
        return ""
    return f", weight {min(weights):g}" if len(weights) == 1 else f", weights {min(weights):g} to {max(weights):g}"


def _print_findings(findings: Sequence[RowFinding], row: ShownRow, console: Console) -> None:
    """Print a line per finding: of each rule the first few, and how many more there are."""
    counts = Counter(found.rule for found in findings)
    shown: Counter[str] = Counter()
    for found in findings:
        shown[found.rule] += 1
        if shown[found.rule] <= _MAX_FINDINGS:
            print_text(console, _finding_line(found, row), indent=_FINDING)
        elif shown[found.rule] == counts[found.rule]:
            more = counts[found.rule] - _MAX_FINDINGS
            print_text(
                console, Text(f"{found.level}: {found.rule}, {more:,} more in this turn", "dim"), indent=_FINDING
            )


def _finding_line(found: RowFinding, row: ShownRow) -> Text:
    line = Text(f"{found.level}: {found.rule}", level_style(found.level))
    if found.rule not in WHOLE_ROW_RULES:
        line.append(f", {_where(found, row)}")
    line.append(f": {RULES[found.rule].description}", style="default")
    return line


def _where(found: RowFinding, row: ShownRow) -> str:
    """Describe the tokens of a finding: their positions and their text."""
    tokens = row.tokens[found.start : found.stop]
    if len(tokens) == 1:
        name = f"token {found.start:,}"
        return f"{name} {_quoted(tokens[0].text)}" if tokens[0].text else f"{name} (id {tokens[0].id})"
    text = "".join(token.text if token.text is not None else f"<{token.id}>" for token in tokens)
    return f"tokens {found.start:,} to {found.stop - 1:,} {_quoted(text)}"


def _quoted(text: str) -> str:
    if len(text) > _MAX_QUOTED:
        text = f"{text[: _MAX_QUOTED // 2]} ... {text[-_MAX_QUOTED // 2 :]}"
    return f'"{escape_to_one_line(text, reserved=OPEN + CLOSE)}"'
