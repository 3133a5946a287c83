"""A report of inspect-shards on the screen: tables for the summary, coloured or marked text for the rows.

What comes from data is never markup: it is escaped (see `inspection.visible`) and put into Text objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from sftkit.config.fields import plain
from sftkit.config.schema import InspectConfig
from sftkit.console.findings import print_findings
from sftkit.inspection.report import Report
from sftkit.inspection.rows import Segment, ShownRow, segments
from sftkit.inspection.summary import Origin, SplitSummary, Summary
from sftkit.inspection.visible import one_line, terminal_safe_json, visible
from sftkit.shards.manifest import SourceInfo

_TRAINED = Style(color="green")
_UNTRAINED = Style(dim=True)
_SPECIAL = Style(bold=True, reverse=True)
_WRONG = Style(color="red", bold=True, underline=True)
_ALTERED = Style(color="magenta")
_HEADING = Style(bold=True)
_NOTE = Style(color="yellow")

_OPEN, _CLOSE, _WRONG_MARK = "⟦", "⟧", "≠"
_LISTED = 20
"""Shards and sources named on the screen; JSON has all of them."""

_BAR = 30


def report_json(report: Report) -> str:
    """The report as one JSON document: `summary`, `rows` (with all their tokens), `notes` and `audit`."""
    return terminal_safe_json(json.dumps(plain(report), indent=2, ensure_ascii=False))


def print_report(report: Report, config: InspectConfig, console: Console) -> None:
    """Print a report as text, or as JSON and nothing else when `config.format` is json.

    Where the console has no colour, marks tell trained tokens from the others.
    """
    if config.format == "json":
        console.file.write(report_json(report) + "\n")
        return
    _print_summary(report.summary, console)
    for note in report.notes:
        _print(console, _note(note))
    if report.audit is not None:
        for note in report.audit.notes:
            _print(console, _note(note))
        print_findings(report.audit.rows, report.audit.findings, console)
    if not report.rows:
        return
    marks = console.no_color or console.color_system is None
    if any(row.trained_tokens is not None for row in report.rows):
        _print(console, Text("\n"), _legend(report.rows, marks=marks))
    for row in report.rows:
        _print(console, Text("\n"), _title(row), Text("\n"), *(_note(f"{note}\n") for note in row.notes))
        _print(console, _body(row, marks=marks, whitespace=config.show_whitespace))


def _print(console: Console, *parts: Text) -> None:
    """Print text; lines are wrapped on a terminal only, so that a pipe gets the lines of the data."""
    text = Text.assemble(*parts)
    if console.is_terminal:
        console.print(text, overflow="fold", highlight=False)
    else:
        console.print(text, soft_wrap=True, highlight=False)


def _note(sentence: str) -> Text:
    ending = "\n" if sentence.endswith("\n") else ""
    return Text(f"note: {one_line(sentence.removesuffix(ending))}{ending}", style=_NOTE)


# --- rows


def _legend(rows: Sequence[ShownRow], *, marks: bool) -> Text:
    wrong = any(token.label is not None for row in rows for token in row.tokens)
    if marks:
        text = f"{_OPEN}trained{_CLOSE}: these tokens carry a loss; everything else carries none"
        return Text(text + (f"; {_OPEN}{_WRONG_MARK}...{_CLOSE}: their label is another token" if wrong else ""))
    legend = Text.assemble(("trained", _TRAINED), " ", ("not trained", _UNTRAINED), " ", ("special token", _SPECIAL))
    return Text.assemble(legend, " ", ("label is another token", _WRONG)) if wrong else legend


def _title(row: ShownRow) -> Text:
    unit = "characters" if row.text is not None else "tokens"
    title = Text(f"{row.split} row {row.row:,}", style=_HEADING)
    title.append(f" ({one_line(row.shard)} row {row.shard_row:,}): {row.length:,} {unit}", style=Style(bold=False))
    if row.trained_tokens is not None:
        title.append(f", {row.trained_tokens:,} trained{_percent(row.trained_share)}", style=Style(bold=False))
    if row.seq_lengths:
        title.append(f", {len(row.seq_lengths):,} sequences", style=Style(bold=False))
    return title


def _body(row: ShownRow, *, marks: bool, whitespace: bool) -> Text:
    body = Text()
    if row.text is not None:
        _append(body, row.text, Style(), whitespace=whitespace, reserved="")
        return body
    decoded = any(token.text is not None for token in row.tokens)
    sequence, inside = 0, False
    for segment in segments(row):
        if segment.sequence != sequence:
            sequence = segment.sequence
            body.append(_CLOSE if inside else "")
            inside = False
            body.append(f"\n--- sequence {sequence + 1} of {len(row.seq_lengths)}\n", style=_HEADING)
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


# --- summary


def _print_summary(summary: Summary, console: Console) -> None:
    _print(console, Text(one_line(summary.location), style=_HEADING))
    console.print(_splits(summary), highlight=False)
    shards = [shard for split in summary.splits for shard in split.shards]
    if len(shards) > len(summary.splits):
        table = _table("shard", "rows", "tokens", "trained")
        for shard in shards[:_LISTED]:
            size = shard.tokens if shard.tokens is not None else shard.characters
            table.add_row(*_cells(shard.file, shard.rows, size, shard.trained_tokens))
        console.print(table, highlight=False)
        _print_more(console, len(shards), "shards")
    for split in summary.splits:
        _print_histogram(split, console)
    facts = [("columns", ", ".join(summary.columns))]
    if summary.supervision != ("labels",) and summary.supervision:
        facts.append(("loss told by", " and ".join(summary.supervision)))
    if summary.text_column is not None:
        facts.append(("text", f"column {summary.text_column}, not tokenized"))
    _print_facts(console, [*facts, *(_facts_of(summary.origin) if summary.origin is not None else [])])
    if summary.origin is not None:
        _print_sources(summary.origin, console)
    for note in summary.notes:
        _print(console, _note(note))


def _splits(summary: Summary) -> Table:
    table = _table("", *(split.name for split in summary.splits))

    def line(name: str, values: Iterable[str]) -> None:
        table.add_row(*_cells(name, *values))

    splits = summary.splits
    line("shards", (f"{len(split.shards):,}" for split in splits))
    line("rows", (f"{split.rows:,}" for split in splits))
    if any(split.sequences is not None for split in splits):
        line("sequences", (_number(split.sequences) for split in splits))
    if any(split.tokens is not None for split in splits):
        line("tokens", (_number(split.tokens) for split in splits))
        line("trained tokens", (f"{_number(s.trained_tokens)}{_percent(s.trained_share)}" for s in splits))
    if any(split.characters is not None for split in splits):
        line("characters", (_number(split.characters) for split in splits))
    for name in ("min", "median", "mean", "p95", "max"):
        line(f"length {name}", (_number(getattr(split.lengths, name, None)) for split in splits))
    return table


def _print_histogram(split: SplitSummary, console: Console) -> None:
    if split.lengths is None:
        return
    unit = "tokens" if split.tokens is not None else "characters"
    table = _table(f"{split.name}: {unit}", "rows", "")
    table.columns[2].justify = "left"
    most = max(split.lengths.histogram.values())
    for bucket, rows in split.lengths.histogram.items():
        low = int(bucket)
        span = f"{low:,}" if low < 2 else f"{low:,} to {2 * low - 1:,}"
        table.add_row(*_cells(span, rows, "#" * max(1, round(_BAR * rows / most))))
    console.print(table, highlight=False)


def _facts_of(origin: Origin) -> list[tuple[str, str]]:
    facts = []
    if origin.tokenizer is not None:
        tokenizer = origin.tokenizer
        facts.append(("tokenizer", f"{tokenizer.name} ({tokenizer.vocabulary_size:,} tokens)"))
        if tokenizer.added_special_tokens:
            facts.append(("added tokens", ", ".join(tokenizer.added_special_tokens)))
        if tokenizer.chat_template_sha256 is not None:
            facts.append(("chat template", f"sha256 {tokenizer.chat_template_sha256[:12]}"))
    facts.append(("engine", ", ".join(f"{part} {name}" for part, name in origin.engine.items())))
    account = f"{origin.rows_read:,} read, {origin.rows_written:,} written"
    for count, what in (
        (sum(origin.dropped.values()), "dropped"),
        (origin.quarantined, "quarantined"),
        (origin.rows_left_out, "left out by split or mix"),
        (origin.rows_repeated, "repeated by the mix"),
    ):
        account += f", {count:,} {what}" if count else ""
    facts.append(("rows", account))
    facts += [("dropped", f"{count:,} {reason}") for reason, count in origin.dropped.items()]
    return facts


def _print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    for name, value in facts:
        _print(console, Text(f"{name}: ", style=_HEADING), Text(one_line(value), style=Style(bold=False)))


def _print_sources(origin: Origin, console: Console) -> None:
    shown = origin.sources[:_LISTED]
    _print_facts(console, (("source", f"{source.path}: {_account(source)}") for source in shown))
    _print_more(console, len(origin.sources), "sources")


def _account(source: SourceInfo) -> str:
    account = f"{source.rows_read:,} read, {source.rows_kept:,} kept"
    dropped = sum(source.dropped.values())
    account += f", {dropped:,} dropped" if dropped else ""
    return account + (f", {source.quarantined:,} quarantined" if source.quarantined else "")


def _print_more(console: Console, count: int, what: str) -> None:
    if count > _LISTED:
        _print(console, Text(f"... and {count - _LISTED:,} more {what}"))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style=_HEADING, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(Text(first), overflow="fold")
    for name in others:
        table.add_column(Text(name), justify="right", overflow="fold")
    return table


def _cells(*values: str | int | None) -> list[Text]:
    return [Text(one_line(value) if isinstance(value, str) else _number(value)) for value in values]


def _number(value: int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) and value != int(value) else f"{int(value):,}"


def _percent(part: float | None) -> str:
    return f" ({100 * part:.1f} %)" if part is not None else ""
