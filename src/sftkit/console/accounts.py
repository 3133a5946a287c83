"""What became of the rows of a run, on the screen: for every source, and why rows did not pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sftkit.console.lines import print_text
from sftkit.inspection.visible import one_line
from sftkit.shards.manifest import Manifest, SourceInfo

_MOST_SOURCES = 10
_MOST_REASONS = 10


def print_account(manifest: Manifest, console: Console) -> None:
    """The account of rows: a line for all of them, a table of sources where they differ, and the reasons."""
    print_text(console, Text(", ".join(_in_all(manifest))))
    if len(manifest.sources) > 1 and manifest.rows_read > sum(source.rows_kept for source in manifest.sources):
        console.print(_table(manifest))
        if len(manifest.sources) > _MOST_SOURCES:
            others = len(manifest.sources) - _MOST_SOURCES
            print_text(
                console, Text(f"and {others:,} more sources, which lost fewer rows; the manifest has all"), indent=2
            )
    for line in _reasons(manifest):
        print_text(console, Text(line), indent=2)


def _in_all(manifest: Manifest) -> Iterator[str]:
    yield f"{manifest.rows_read:,} rows read"
    dropped = sum(manifest.dropped.values())
    if dropped:
        yield f"{dropped:,} dropped"
    if manifest.quarantined:
        yield f"{manifest.quarantined:,} quarantined (quarantine.jsonl)"
    if manifest.rows_left_out:
        yield f"{manifest.rows_left_out:,} left out by split or mix"
    if manifest.rows_repeated:
        yield f"{manifest.rows_repeated:,} written more than once by the mix"
    yield f"{manifest.rows_written:,} written"


def _table(manifest: Manifest) -> Table:
    """Sources in their order; where there are many, those that lost most rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("source", "dataset", "read", "kept", "dropped", "quarantined"):
        table.add_column(heading, justify="left" if heading in ("source", "dataset") else "right", overflow="fold")
    chosen = set(map(id, sorted(manifest.sources, key=_lost, reverse=True)[:_MOST_SOURCES]))
    for source in manifest.sources:
        if id(source) in chosen:
            names = Text(one_line(source.path)), Text(one_line(source.dataset))
            table.add_row(*names, *_counts([source]))
    table.add_row("all", "", *_counts(manifest.sources), style="bold")
    return table


def _counts(sources: Sequence[SourceInfo]) -> list[str]:
    dropped = sum(sum(source.dropped.values()) for source in sources)
    read, kept = sum(source.rows_read for source in sources), sum(source.rows_kept for source in sources)
    return [f"{count:,}" for count in (read, kept, dropped, sum(source.quarantined for source in sources))]


def _lost(source: SourceInfo) -> int:
    return source.rows_read - source.rows_kept


def _reasons(manifest: Manifest) -> Iterator[str]:
    for handler, dropped in manifest.dropped_by_handler.items():
        yield from _most(dropped, f"dropped by {handler}")
    yield from _most(manifest.quarantined_by_reason, "quarantined")


def _most(reasons: Mapping[str, int], what: str) -> Iterator[str]:
    ordered = sorted(reasons.items(), key=lambda reason: -reason[1])
    for reason, count in ordered[:_MOST_REASONS]:
        yield one_line(f"{count:,} {what}: {reason}")
    if len(ordered) > _MOST_REASONS:
        yield f"{sum(count for _, count in ordered[_MOST_REASONS:]):,} {what}: other reasons"
