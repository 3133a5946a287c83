"""Prints the outcome of `preprocess`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sftkit.api.use_cases import PreprocessResult
from sftkit.cli.console.reports.show_findings import print_findings
from sftkit.cli.console.reports.show_inference import inference_lines
from sftkit.cli.console.reports.show_mix import is_mixed, mix_table
from sftkit.cli.console.reports.show_plan import print_plan
from sftkit.cli.console.reports.show_unused_columns import unused_columns_of
from sftkit.cli.console.text_lines import new_table, print_text
from sftkit.core.accounting.cuts import Cuts
from sftkit.core.accounting.row_notes import ROLE_PREFIX
from sftkit.core.escape import escape_to_one_line
from sftkit.core.splits import TRAIN
from sftkit.redaction import redact_url
from sftkit.shards.manifest import Manifest
from sftkit.shards.source_info import SourceInfo
from sftkit.storage.dataset_files import DROPPED_NAME

_MAX_SOURCES = 10
_MAX_REASONS = 10

_USUAL_BATCH = 8
"""Packs of a step with one device, if `train` is given no batch size."""

_SHOWN_NAMES = {"stage": "tokenize", "finish": "length limit", "store": "write"}
"""Names of stages in a manifest -> names that are shown."""


def print_outcome(result: PreprocessResult, console: Console) -> None:
    """Print what `preprocess` did: the plan of a dry run, what was written, or that nothing was left to do."""
    if result.manifest is None:
        print_plan(result.plan, console)
    elif result.ran:
        print_result(result.manifest, result.output_dir, console)
    else:
        print_text(
            console, Text(escape_to_one_line(f"{redact_url(result.output_dir)}: complete and unchanged, nothing to do"))
        )


def print_result(manifest: Manifest, output_dir: str, console: Console) -> None:
    """Print what a run wrote: splits, packs, row counts, times and findings."""
    table = new_table("split", right=("shards", "rows", "tokens", "trained", "share"))
    for name, split in manifest.splits.items():
        share = f"{split.trained_tokens / split.tokens:.1%}" if split.tokens else "-"
        # Rows of text have no tokens yet.
        tokens = (split.tokens, split.trained_tokens) if manifest.text_column is None else (None, None)
        counts = (len(split.shards) or None, split.rows, *tokens)
        table.add_row(name, *("-" if count is None else f"{count:,}" for count in counts), share)
    console.print(table)
    for name, split in manifest.splits.items():
        if split.pack_length is not None and split.sequences is not None and split.fill_rate is not None:
            padding = "" if split.padding_tokens is None else f", {split.padding_tokens:,} tokens of padding"
            console.print(
                Text(
                    f"{name}: {split.rows:,} packs of {split.pack_length:,} tokens, {split.fill_rate:.1%} full, "
                    f"{split.sequences:,} sequences ({split.sequences / split.rows:.1f} per pack){padding}"
                )
            )
            if name == TRAIN and split.pack_length is not None:
                steps = -(-split.rows // _USUAL_BATCH)
                number = f"{steps:,} step{'s' if steps > 1 else ''} an epoch"
                console.print(Text(f"at {_USUAL_BATCH} packs of {split.pack_length:,} tokens a step: {number}"))
    print_row_counts(manifest, console)
    for line in unused_columns_of(manifest):
        print_text(console, Text(escape_to_one_line(line), "yellow"))
    if manifest.increments:
        added, total = manifest.increments[-1].sources, len(manifest.sources)
        console.print(Text(f"{added:,} of {total:,} files added; the shards of the others stay as they are"))
    elif manifest.units_found:
        tokenized = manifest.units - manifest.units_found
        units = f"{manifest.units_found:,} of {manifest.units:,} work units found staged, {tokenized:,} tokenized"
        console.print(Text(units))
    console.print(Text(f"time: {_seconds(manifest.seconds)}"))
    if manifest.worker_seconds:  # not if all units were reused
        console.print(Text(f"worker time: {_seconds(manifest.worker_seconds)}"))
    print_not_rendered(manifest, console)
    if manifest.audit is not None:
        print_findings(manifest.audit.rows, manifest.audit.findings, console)
    if manifest.text_column is not None:
        console.print(
            Text(
                f"the shards hold text ({manifest.text_column!r}), not tokens: `train` tokenizes them, "
                "given the same options",
                "yellow",
            )
        )
    console.print(Text(f"written to {redact_url(output_dir)}"))
    for name, files in manifest.formats.items():
        size = sum(file.bytes for file in files)
        print_text(
            console,
            Text(f"{name}: {len(files):,} file{'' if len(files) == 1 else 's'}, {size:,} bytes in {name}/"),
            indent=2,
        )


def print_not_rendered(manifest: Manifest, console: Console) -> None:
    """Print which keys of conversations the chat template did not render, by data set if there are several."""
    datasets: dict[str, Counter[str]] = {}
    for source in manifest.sources:
        datasets.setdefault(source.dataset, Counter()).update(source.not_rendered)
    for dataset, keys in datasets.items():
        if keys:
            parts = [
                f"{_shown_key(key)} in {count:,} {'row' if count == 1 else 'rows'}" for key, count in keys.most_common()
            ]
            more = f", and {len(parts) - _MAX_REASONS:,} more keys" if len(parts) > _MAX_REASONS else ""
            where = f" ({dataset})" if len(datasets) > 1 else ""
            line = f"not rendered{where}: {', '.join(parts[:_MAX_REASONS])}{more}"
            print_text(console, Text(escape_to_one_line(line)))


def _shown_key(key: str) -> str:
    role = key.removeprefix(ROLE_PREFIX)
    return f"`{key}`" if role == key else f"messages of the role `{role}`"


def _seconds(spent: Mapping[str, float]) -> str:
    return ", ".join(f"{_SHOWN_NAMES.get(name, name)} {seconds:.1f} s" for name, seconds in spent.items())


def print_row_counts(manifest: Manifest, console: Console) -> None:
    """Print what became of all rows: the totals, what was cut off, a table of sources if anything was lost, and why."""
    print_text(console, Text(", ".join(_totals(manifest))))
    for line in inference_lines(manifest):
        print_text(console, Text(line))
    cuts = manifest.cuts or Cuts()
    if cuts.rows:
        print_text(console, Text(cuts.describe(manifest.rows_read), "yellow"))
    if len(manifest.sources) > 1 and any(any(_losses(source)) for source in manifest.sources):
        console.print(_source_counts(manifest))
        if len(manifest.sources) > _MAX_SOURCES:
            others = len(manifest.sources) - _MAX_SOURCES
            note = f"and {others:,} more sources that lost less; the manifest lists all of them"
            print_text(console, Text(note), indent=2)
    if is_mixed(manifest):
        console.print(mix_table(manifest, "dataset"), highlight=False)
    for line in _reasons(manifest):
        print_text(console, Text(line), indent=2)


def _totals(manifest: Manifest) -> Iterator[str]:
    yield f"{manifest.rows_read:,} row{'' if manifest.rows_read == 1 else 's'} read"
    if manifest.rows_added:
        yield f"{manifest.rows_added:,} added by {manifest.adds_rows}"
    dropped = sum(manifest.dropped.values())
    if dropped:
        yield f"{dropped:,} dropped{_place_of_dropped(manifest, dropped)}"
    if manifest.quarantined:
        yield f"{manifest.quarantined:,} quarantined (quarantine.jsonl)"
    if manifest.rows_left_out:
        yield f"{manifest.rows_left_out:,} left out by split or mix"
    if manifest.rows_repeated:
        yield f"{manifest.rows_repeated:,} repeated by the mix"
    yield f"{manifest.rows_written:,} written"


def _place_of_dropped(manifest: Manifest, count: int) -> str:
    if DROPPED_NAME not in manifest.files:
        return ""
    kept = manifest.config.get("keep_dropped", count)
    return f" (the first {kept:,} in {DROPPED_NAME})" if kept < count else f" ({DROPPED_NAME})"


def _source_counts(manifest: Manifest) -> Table:
    """Return a table of the sources in their order; if there are many, of those that lost the most rows."""
    cut = ("cut", "trained tokens lost") if (manifest.cuts or Cuts()).rows else ()
    table = new_table("source", "dataset", right=("read", "kept", "dropped", "quarantined", *cut))
    chosen = set(map(id, sorted(manifest.sources, key=_losses, reverse=True)[:_MAX_SOURCES]))
    for source in manifest.sources:
        if id(source) in chosen:
            names = Text(escape_to_one_line(source.path)), Text(escape_to_one_line(source.dataset))
            table.add_row(*names, *_sums([source], with_cuts=bool(cut)))
    table.add_row("all", "", *_sums(manifest.sources, with_cuts=bool(cut)), style="bold")
    return table


def _sums(sources: Sequence[SourceInfo], *, with_cuts: bool) -> list[str]:
    dropped = sum(sum(source.dropped.values()) for source in sources)
    read, kept = sum(source.rows_read for source in sources), sum(source.rows_kept for source in sources)
    cuts = sum((source.cuts or Cuts() for source in sources), Cuts())
    cut = (cuts.rows, cuts.trained_tokens) if with_cuts else ()
    return [f"{count:,}" for count in (read, kept, dropped, sum(source.quarantined for source in sources), *cut)]


def _losses(source: SourceInfo) -> tuple[int, int]:
    """Return how many rows of a source were lost, and how many were cut."""
    return source.rows_read - source.rows_kept, (source.cuts or Cuts()).rows


def _reasons(manifest: Manifest) -> Iterator[str]:
    for handler, dropped in manifest.dropped_by_handler.items():
        where = "after the handlers" if handler == "finish" else f"by {handler}"
        yield from _most_frequent(dropped, f"dropped {where}")
    yield from _most_frequent(manifest.quarantined_by_reason, "quarantined")


def _most_frequent(reasons: Mapping[str, int], what: str) -> Iterator[str]:
    ordered = sorted(reasons.items(), key=lambda reason: -reason[1])
    for reason, count in ordered[:_MAX_REASONS]:
        yield escape_to_one_line(f"{count:,} {what}: {reason}")
    if len(ordered) > _MAX_REASONS:
        yield f"{sum(count for _, count in ordered[_MAX_REASONS:]):,} {what}: other reasons"
