"""Prints a report of `inspect-shards`: tables for the summary, then rows, or the findings of an audit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from sftkit.audit.findings import reaches
from sftkit.cli.console.reports.show_comparison import print_comparison
from sftkit.cli.console.reports.show_findings import print_findings, print_inference
from sftkit.cli.console.reports.show_inference import inference_lines
from sftkit.cli.console.reports.show_mix import mix_table, source_table
from sftkit.cli.console.reports.show_rows import print_rows
from sftkit.cli.console.reports.show_unused_columns import unused_columns_of
from sftkit.cli.console.reports.show_verification import print_verification
from sftkit.cli.console.text_lines import note_of, percent, print_text
from sftkit.config.commands import InspectConfig
from sftkit.config.fields import to_plain_data
from sftkit.core.escape import ascii_json, escape_to_one_line, terminal_safe_json
from sftkit.core.token_kinds import TRAINED_KINDS, TokenKind
from sftkit.inspection.compare.comparison import Comparison
from sftkit.inspection.report import Report
from sftkit.inspection.summary.dataset_summary import PackSummary, SplitSummary, Summary
from sftkit.inspection.verify.outcome import Verification
from sftkit.shards.manifest import Manifest
from sftkit.shards.source_info import SourceInfo

_HEADING = Style(bold=True)

_MAX_LISTED = 20
"""Shards and sources that are listed; JSON has all of them."""

_BAR_WIDTH = 30
"""Columns of the longest bar of a histogram."""

_ORIGIN_KEYS = (
    *(
        "tokenizer",
        "engine",
        "sources",
        "rows_read",
        "rows_added",
        "rows_written",
        "rows_left_out",
        "rows_repeated",
        "dropped",
    ),
    *("quarantined", "cuts", "fingerprint", "versions"),
)
"""The keys of a manifest that JSON reports contain."""


Inspection = Report | Verification | Comparison


def print_inspection(found: Inspection, config: InspectConfig, console: Console) -> None:
    """Print a report, a verification or a comparison as `config.format` asks."""
    if config.format == "json":
        document = report_json(found)
        console.file.write(f"{document if console.encoding.startswith('utf') else ascii_json(document)}\n")
    elif isinstance(found, Verification):
        print_verification(found, console)
    elif isinstance(found, Comparison):
        print_comparison(found, config, console)
    else:
        print_report(found, config, console)
    if config.format != "json" and config.report is not None:
        print_text(console, Text(f"report written to {escape_to_one_line(config.report)}"))


def has_failed(found: Inspection, config: InspectConfig) -> bool:
    """Whether something differs from the manifest or (with `fail_on_difference`) from the other data set, or the audit
    has findings of the level of `config.fail_on`.
    """
    if isinstance(found, Comparison):
        return config.fail_on_difference and found.differs
    if isinstance(found, Verification):
        return bool(found.differences)
    return config.fail_on is not None and found.audit is not None and reaches(found.audit.findings, config.fail_on)


def report_json(found: Inspection) -> str:
    """Return a report, a verification or a comparison as one JSON document. Its keys are the fields of the class,
    except that of the manifest in a report's summary only `_ORIGIN_KEYS` are included.
    """
    document = to_plain_data(found)
    if isinstance(found, Report) and found.summary.origin is not None:
        manifest = document["summary"]["origin"]
        document["summary"]["origin"] = {key: manifest[key] for key in _ORIGIN_KEYS}
    return terminal_safe_json(json.dumps(document, indent=2, ensure_ascii=False))


def print_report(report: Report, config: InspectConfig, console: Console) -> None:
    """Print a report as text. Without colours, marks surround trained tokens."""
    _print_summary(report.summary, config, console)
    for note in report.notes:
        print_text(console, note_of(note))
    if report.audit is not None:
        for note in report.audit.notes:
            print_text(console, note_of(note))
        audit = report.audit
        print_findings(audit.rows, audit.findings, console, audit.sequences)
        if audit.inference is not None:
            print_inference(audit.inference, console, "row" if audit.sequences is None else "sequence")
    if report.rows:
        print_rows(report.rows, console, whitespace=config.show_whitespace)


def _print_summary(summary: Summary, config: InspectConfig, console: Console) -> None:
    print_text(console, Text(escape_to_one_line(summary.location), style=_HEADING))
    console.print(_split_table(summary), highlight=False)
    shards = [shard for split in summary.splits for shard in split.shards]
    if len(shards) > len(summary.splits):
        table = _table(
            "shard", "packs" if all(split.packs for split in summary.splits) else "rows", "tokens", "trained"
        )
        for shard in shards[:_MAX_LISTED]:
            size = shard.tokens if shard.tokens is not None else shard.characters
            table.add_row(*_cells(shard.file, shard.rows, size, shard.trained_tokens))
        console.print(table, highlight=False)
        _print_more(console, len(shards), "shards")
    for split in summary.splits:
        _print_histogram(split, console)
    facts = [("columns", ", ".join(summary.columns))]
    if summary.supervision != ("labels",) and summary.supervision:
        facts.append(("loss mask from", " and ".join(summary.supervision)))
    if summary.text_column is not None:
        facts.append(("text", f"column {summary.text_column}, not tokenized"))
    _print_facts(console, [*facts, *(_origin_facts(summary.origin) if summary.origin is not None else [])])
    _print_origin(summary, config, console)
    for note in summary.notes:
        print_text(console, note_of(note))


def _print_origin(summary: Summary, config: InspectConfig, console: Console) -> None:
    """Print where rows come from: the files, or tables by source if the config asks for them."""
    if summary.origin is not None:
        if config.by is None:
            _print_sources(summary.origin, console)
        elif any(each.written for each in summary.origin.sources):
            console.print(mix_table(summary.origin, config.by), highlight=False)
        for line in unused_columns_of(summary.origin):
            print_text(console, note_of(line))
    for split in summary.splits if config.by is not None else ():
        if split.by_source is not None:
            console.print(source_table(split), highlight=False)


def _split_table(summary: Summary) -> Table:
    table = _table("", *(split.name for split in summary.splits))

    def line(name: str, values: Iterable[str]) -> None:
        table.add_row(*_cells(name, *values))

    splits = summary.splits
    line("shards", (f"{len(split.shards):,}" for split in splits))
    line(_unit(splits), (f"{split.rows:,}" for split in splits))
    packs = [split.packs for split in splits]
    if any(packs):
        line("pack length", (_number(each.pack_length if each else None) for each in packs))
        line("fill rate", (f"{each.fill_rate:.1%}" if each else "-" for each in packs))
        line("sequences", (_number(each.sequences if each else None) for each in packs))
        line("sequences per pack", (_mean_and_max(each) if each else "-" for each in packs))
    if any(split.tokens is not None for split in splits):
        line("tokens", (_number(split.tokens) for split in splits))
        line("trained tokens", (f"{_number(s.trained_tokens)}{percent(s.trained_tokens, s.tokens)}" for s in splits))
    if any(split.trained_by_kind is not None for split in splits):
        for kind in TRAINED_KINDS:
            line(f"  {kind.label}", (_trained_as(kind, split) for split in splits))
    if any(split.characters is not None for split in splits):
        line("characters", (_number(split.characters) for split in splits))
    prefix = "sequence " if all(packs) else ""
    for name in ("min", "median", "mean", "p95", "max"):
        line(f"{prefix}length {name}", (_number(getattr(split.lengths, name, None)) for split in splits))
    return table


def _trained_as(kind: TokenKind, split: SplitSummary) -> str:
    count = (split.trained_by_kind or {}).get(kind.label)
    return f"{_number(count)}{percent(count, split.trained_tokens)}"


def _unit(splits: Sequence[SplitSummary]) -> str:
    return "packs" if all(split.packs is not None for split in splits) else "rows"


def _mean_and_max(packs: PackSummary) -> str:
    return f"{packs.sequences_mean:,.1f} (max {packs.sequences_max:,})"


def _print_histogram(split: SplitSummary, console: Console) -> None:
    if split.lengths is None:
        return
    unit = "tokens" if split.tokens is not None else "characters"
    table = _table(f"{split.name}: {unit}", "rows" if split.packs is None else "sequences", "")
    table.columns[2].justify = "left"
    largest = max(split.lengths.histogram.values())
    for bucket, rows in split.lengths.histogram.items():
        low = int(bucket)
        span = f"{low:,}" if low < 2 else f"{low:,} to {2 * low - 1:,}"
        table.add_row(*_cells(span, rows, "#" * max(1, round(_BAR_WIDTH * rows / largest))))
    console.print(table, highlight=False)


def _origin_facts(origin: Manifest) -> list[tuple[str, str]]:
    facts = []
    if origin.tokenizer is not None:
        tokenizer = origin.tokenizer
        facts.append(("tokenizer", f"{tokenizer.name} ({tokenizer.vocabulary_size:,} tokens)"))
        if tokenizer.added_special_tokens:
            facts.append(("added tokens", ", ".join(tokenizer.added_special_tokens)))
        if tokenizer.chat_template_sha256 is not None:
            facts.append(("chat template", f"sha256 {tokenizer.chat_template_sha256[:12]}"))
    facts.append(("engine", ", ".join(f"{part} {name}" for part, name in origin.engine.items())))
    counts = f"{origin.rows_read:,} read, {origin.rows_written:,} written"
    for count, what in (
        (origin.rows_added, f"added by {origin.adds_rows}"),
        (sum(origin.dropped.values()), "dropped"),
        (origin.quarantined, "quarantined"),
        (origin.rows_left_out, "left out by split or mix"),
        (origin.rows_repeated, "repeated by the mix"),
    ):
        counts += f", {count:,} {what}" if count else ""
    facts.append(("rows", counts))
    if origin.cuts is not None and origin.cuts.rows:
        facts.append(("cut", origin.cuts.describe(origin.rows_read)))
    facts += [("inference", line) for line in inference_lines(origin)]
    facts += [("dropped", f"{count:,} {reason}") for reason, count in origin.dropped.items()]
    return facts


def _print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    for name, value in facts:
        print_text(console, Text(f"{name}: ", style=_HEADING), Text(escape_to_one_line(value), style=Style(bold=False)))


def _print_sources(origin: Manifest, console: Console) -> None:
    shown = origin.sources[:_MAX_LISTED]
    _print_facts(console, (("source", f"{source.path}: {_row_counts(source)}") for source in shown))
    _print_more(console, len(origin.sources), "sources")


def _row_counts(source: SourceInfo) -> str:
    added = f", {source.rows_added:,} added" if source.rows_added else ""
    counts = f"{source.rows_read:,} read{added}, {source.rows_kept:,} kept"
    dropped = sum(source.dropped.values())
    counts += f", {dropped:,} dropped" if dropped else ""
    counts += f", {source.quarantined:,} quarantined" if source.quarantined else ""
    if source.cuts is None or not source.cuts.rows:
        return counts
    return f"{counts}, {source.cuts.rows:,} cut ({source.cuts.trained_tokens:,} trained tokens lost)"


def _print_more(console: Console, count: int, what: str) -> None:
    if count > _MAX_LISTED:
        print_text(console, Text(f"... and {count - _MAX_LISTED:,} more {what}"))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style=_HEADING, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(Text(first), overflow="fold")
    for name in others:
        table.add_column(Text(name), justify="right", overflow="fold")
    return table


def _cells(*values: str | int | None) -> list[Text]:
    return [Text(escape_to_one_line(value) if isinstance(value, str) else _number(value)) for value in values]


def _number(value: int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) and value != int(value) else f"{int(value):,}"
