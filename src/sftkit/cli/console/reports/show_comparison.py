"""Prints a comparison of two data sets: settings, counts, and examples side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.style import Style
from rich.text import Text

from sftkit.cli.console.row_text import CLOSE, OPEN, TRAINED, UNTRAINED
from sftkit.cli.console.text_lines import new_table, note_of, print_text
from sftkit.config.commands import InspectConfig
from sftkit.core.escape import escape_to_one_line, visible_parts
from sftkit.inspection.compare.comparison import (
    BY_COLUMN,
    DIFFERENCE_KINDS,
    IDS_DIFFER,
    KIND_NAMES,
    MOVED,
    PAIRED_NAMES,
    Comparison,
    KindCounts,
    RowDifference,
    SequencePlace,
)
from sftkit.inspection.view.shown_row import ShownToken

_HEADING = Style(bold=True)
_SAME, _DIFFERS = Style(color="green"), Style(color="red")

_MAX_SETTINGS = 20
_MAX_SOURCES = 20
_LONGEST_VALUE = 60
_SHA256 = re.compile("[0-9a-f]{64}")

_MARK = "≠"


def print_comparison(found: Comparison, config: InspectConfig, console: Console) -> None:
    """Print a comparison. What differs is also marked where there are no colours."""
    for name, side in (("A", found.a), ("B", found.b)):
        unit = "sequences" if side.packed else "rows"
        splits = ", ".join(f"{split} {count:,} {unit}" for split, count in side.splits.items())
        line = f"{name}: {escape_to_one_line(side.location)} "
        print_text(console, Text(line, style=_HEADING), Text(f"({splits}{', packed' if side.packed else ''})"))
    _print_settings(found, console)
    for note in found.notes:
        print_text(console, note_of(note))
    _print_counts(found, config, console)
    for example in found.examples:
        _print_example(example, config, console)
    if found.differs:
        count = found.counts.differences
        print_text(console, Text(f"{count:,} {'row differs' if count == 1 else 'rows differ'}", style=_DIFFERS))
    else:
        print_text(console, Text("no row differs", style=_SAME))


def _print_settings(found: Comparison, console: Console) -> None:
    if not found.settings:
        if found.a.has_manifest and found.b.has_manifest:
            print_text(console, Text("same fingerprint, config, tokenizer, sources and versions", style=_SAME))
        return
    table = new_table("setting", "A", "B")
    for setting in found.settings[:_MAX_SETTINGS]:
        table.add_row(*(Text(value) for value in (_one_line(setting.key), _value(setting.a), _value(setting.b))))
    console.print(table, highlight=False)
    if len(found.settings) > _MAX_SETTINGS:
        print_text(console, Text(f"... and {len(found.settings) - _MAX_SETTINGS:,} more settings (format: json)"))
    for setting in found.settings:
        for line in setting.details:
            print_text(console, Text(escape_to_one_line(line)), indent=4)


def _print_counts(found: Comparison, config: InspectConfig, console: Console) -> None:
    table = new_table("split", right=tuple(KIND_NAMES.values()))
    for split in found.splits:
        table.add_row(Text(_one_line(split.name)), *_numbers(split.counts))
    if len(found.splits) > 1:
        table.add_row("all", *_numbers(found.counts), style=_HEADING)
    console.print(table, highlight=False)
    for split in found.splits:
        for how, count in split.paired_by.items():
            pairs = "1 pair whose ids differ was" if count == 1 else f"{count:,} pairs whose ids differ were"
            line = f"{split.name}: {pairs} {_how(how, config)}"
            print_text(console, Text(escape_to_one_line(line)))
    if not found.sources:
        return
    table = new_table("source", "dataset", right=tuple(KIND_NAMES.values()))
    for source in found.sources[:_MAX_SOURCES]:
        table.add_row(Text(_one_line(source.source)), Text(_one_line(source.dataset)), *_numbers(source.counts))
    console.print(table, highlight=False)
    if len(found.sources) > _MAX_SOURCES:
        print_text(console, Text(f"... and {len(found.sources) - _MAX_SOURCES:,} more sources (format: json)"))


def _numbers(counts: KindCounts) -> list[str]:
    return [f"{getattr(counts, kind):,}" for kind in ("identical", *DIFFERENCE_KINDS)]


def _how(how: str, config: InspectConfig) -> str:
    return f"{PAIRED_NAMES[how]} {config.compare_by}" if how == BY_COLUMN else PAIRED_NAMES[how]


def _print_example(example: RowDifference, config: InspectConfig, console: Console) -> None:
    console.print()
    places = [(name, side) for name, side in (("A", example.a), ("B", example.b)) if side is not None]
    title = KIND_NAMES[example.kind]
    if example.position is not None:
        title += f" from {'token' if not _is_text(places[0][1]) else 'character'} {example.position:,} on"
    if example.kind == IDS_DIFFER and example.paired_by is not None:
        title += f" ({_how(example.paired_by, config)})"
    print_text(console, Text(escape_to_one_line(title), style=_HEADING))
    for name, place in places:
        print_text(console, Text(f"{name}: {_location(place)}"))
    if example.position is None or _is_text(places[0][1]):
        for name, place in places[:1] if example.kind == MOVED else places:
            print_text(console, Text(f"{name}  "), _excerpt(place, config), indent=4)
    elif example.a is not None and example.b is not None:
        _print_side_by_side(example.a, example.b, config, console)


def _print_side_by_side(a: SequencePlace, b: SequencePlace, config: InspectConfig, console: Console) -> None:
    """Print the tokens of both sides, one a line, with a mark where they differ."""
    table = new_table("token", "", "A", "", "loss", "B", "", "loss")
    for offset in range(max(len(a.tokens), len(b.tokens))):
        one, other = (side.tokens[offset] if offset < len(side.tokens) else None for side in (a, b))
        mark = _MARK if _look(one) != _look(other) else ""
        cells = [cell for token in (one, other) for cell in _cells(token, config)]
        style = _DIFFERS if mark else Style()
        table.add_row(Text(f"{a.first + offset:,}"), Text(mark, style), *cells)
    console.print(table, highlight=False)


def _look(token: ShownToken | None) -> tuple[Any, ...] | None:
    return None if token is None else (token.id, token.label)


def _cells(token: ShownToken | None, config: InspectConfig) -> Iterator[Text]:
    if token is None:
        yield from (Text("-"), Text("(end)"), Text(""))
        return
    yield Text(str(token.id))
    yield _visible(token, config, quoted=True)
    loss = "" if token.trained is None else "yes" if token.trained else "no"
    yield Text(loss if not token.is_mislabelled else f"yes, of {token.label}")


def _excerpt(place: SequencePlace, config: InspectConfig) -> Text:
    """Return the part of a sequence that is shown, on one line, with marks around trained tokens."""
    body = Text("... " if place.first else "")
    if place.text is not None:
        body.append(escape_to_one_line(place.text))
        shown = len(place.text)
    else:
        inside = False
        for number, token in enumerate(place.tokens):
            if inside != bool(token.trained):
                inside = bool(token.trained)
                body.append(OPEN if inside else CLOSE)
            if token.text is None and number:
                body.append(" ")
            body.append_text(_visible(token, config, quoted=False))
        body.append(CLOSE if inside else "")
        shown = len(place.tokens)
    if place.first + shown < place.length:
        body.append(f" ... ({place.length:,} {'tokens' if place.text is None else 'characters'})")
    return body


def _visible(token: ShownToken, config: InspectConfig, *, quoted: bool) -> Text:
    style = TRAINED if token.trained else UNTRAINED
    if token.text is None:
        return Text("" if quoted else str(token.id), style)
    parts = visible_parts(token.text, whitespace=config.show_whitespace, reserved="" if quoted else OPEN + CLOSE)
    text = "".join(part.text for part in parts).replace("\n", "\\n").replace("\t", "\\t")
    return Text(f'"{text}"' if quoted else text, style)


def _location(place: SequencePlace) -> str:
    sequence = f", sequence {place.sequence + 1}" if place.sequence is not None else ""
    unit = "tokens" if place.text is None else "characters"
    return escape_to_one_line(f"{place.split} {place.shard} row {place.row}{sequence}: {place.length:,} {unit}")


def _is_text(place: SequencePlace) -> bool:
    return place.text is not None


def _value(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = escape_to_one_line(text)
    if _SHA256.fullmatch(text):
        return f"{text[:12]}..."
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _one_line(text: str) -> str:
    return escape_to_one_line(text)
