"""What a summary makes doubtful: columns that do not fit, labels that say nothing, counts that the manifest denies."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.inspection.parquet_columns import ColumnLayout
from sftkit.inspection.summary.dataset_summary import ShardSummary, SplitSummary
from sftkit.shards.manifest import Manifest, ShardInfo


def count_notes(splits: Sequence[SplitSummary], layouts: Sequence[ColumnLayout]) -> list[str]:
    """What the reader should know of some counts, one sentence each."""
    notes = []
    if len({(layout.tokens, layout.supervision, layout.packed) for layout in layouts}) > 1:
        notes.append("the shards do not have the same columns")
    if any(layout.tokens and not layout.supervision for layout in layouts):
        notes.append("there are no labels: nothing here says which tokens carry a loss")
    for split in splits:
        if split.wrong_labels:
            notes.append(f"{split.name}: {split.wrong_labels:,} tokens carry a label that differs from their id")
        if split.misfit_rows:
            notes.append(f"{split.name}: in {split.misfit_rows:,} rows labels and input_ids differ in length")
        if split.packs is not None and split.packs.misfit:
            packs = f"{split.packs.misfit:,} pack{'s' if split.packs.misfit > 1 else ''}"
            notes.append(f"{split.name}: in {packs} seq_lengths do not say where sequences begin")
        if split.trained_tokens == 0 and split.tokens:
            notes.append(f"{split.name}: not one token carries a loss")
    return notes


def manifest_notes(splits: Sequence[SplitSummary], manifest: Manifest | None) -> list[str]:
    """Shards that do not hold what the manifest says."""
    if manifest is None:
        return []
    notes = []
    for split in splits:
        said = {shard.file: shard for shard in manifest.splits[split.name].shards}
        for shard in split.shards:
            if _counted(shard) != _said(said[shard.file]):
                notes.append(
                    f"{shard.file} is not what the manifest says: {_counted(shard)} (rows, tokens, trained tokens), "
                    f"the manifest has {_said(said[shard.file])}"
                )
        told = manifest.splits[split.name].sequences
        found = split.packs.sequences if split.packs is not None else None
        if len(split.shards) == len(said) and found != told:
            notes.append(
                f"{split.name} is not what the manifest says: {_sequences(found)}, the manifest has {_sequences(told)}"
            )
    return notes


def _sequences(count: int | None) -> str:
    return "rows that are not packed" if count is None else f"{count:,} sequences"


def _counted(shard: ShardSummary) -> tuple[int, int, int]:
    return shard.rows, shard.tokens or 0, shard.trained_tokens or 0


def _said(shard: ShardInfo) -> tuple[int, int, int]:
    return shard.rows, shard.tokens, shard.trained_tokens
