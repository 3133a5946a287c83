"""Warnings in a summary: problems with columns and labels, and counts that differ from the manifest."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.inspection.columns.column_layout import ColumnLayout
from sftkit.inspection.summary.dataset_summary import ShardSummary, SplitSummary
from sftkit.shards.manifest import Manifest, ShardInfo


def count_notes(splits: Sequence[SplitSummary], layouts: Sequence[ColumnLayout]) -> list[str]:
    """Return what the reader should know about the counts, one sentence each."""
    notes = []
    if len({(layout.tokens, layout.supervision, layout.packed) for layout in layouts}) > 1:
        notes.append("the shards have different columns")
    if any(layout.tokens and not layout.supervision for layout in layouts):
        notes.append("there are no labels: which tokens carry a loss is unknown")
    for split in splits:
        if split.wrong_labels:
            notes.append(f"{split.name}: {split.wrong_labels:,} tokens carry a label that differs from their id")
        if split.misfit_rows:
            notes.append(f"{split.name}: in {split.misfit_rows:,} rows labels and input_ids differ in length")
        if split.packs is not None and split.packs.misfit:
            packs = f"{split.packs.misfit:,} pack{'s' if split.packs.misfit > 1 else ''}"
            notes.append(f"{split.name}: in {packs} seq_lengths do not match the tokens")
        if split.trained_tokens == 0 and split.tokens:
            notes.append(f"{split.name}: no token carries a loss")
    return notes


def manifest_notes(splits: Sequence[SplitSummary], manifest: Manifest | None) -> list[str]:
    """Return where the shards differ from their manifest, one sentence each."""
    if manifest is None:
        return []
    notes = []
    rows_of = {file.file: file.rows for file in manifest.format_files}
    for split in splits:
        recorded = {shard.file: shard for shard in manifest.splits[split.name].shards}
        for shard in split.shards:
            if shard.file in recorded and _counted(shard) != _recorded(recorded[shard.file]):
                notes.append(
                    f"{shard.file} does not match the manifest: (rows, tokens, trained tokens) are {_counted(shard)}, "
                    f"the manifest says {_recorded(recorded[shard.file])}"
                )
            elif rows_of.get(shard.file, shard.rows) != shard.rows:
                notes.append(f"{shard.file} has {shard.rows:,} rows, the manifest says {rows_of[shard.file]:,}")
        expected = manifest.splits[split.name].sequences
        found = split.packs.sequences if split.packs is not None else None
        if len(split.shards) == len(recorded) and found != expected:
            notes.append(
                f"{split.name} does not match the manifest: {_sequences(found)}, "
                f"the manifest says {_sequences(expected)}"
            )
    return notes


def _sequences(count: int | None) -> str:
    return "rows that are not packed" if count is None else f"{count:,} sequences"


def _counted(shard: ShardSummary) -> tuple[int, int, int]:
    return shard.rows, shard.tokens or 0, shard.trained_tokens or 0


def _recorded(shard: ShardInfo) -> tuple[int, int, int]:
    return shard.rows, shard.tokens, shard.trained_tokens
