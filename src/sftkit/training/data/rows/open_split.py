"""Open a split of a set of shards for training."""

from __future__ import annotations

from collections.abc import Collection

from sftkit.config.schema.option_values import SFTKIT
from sftkit.core.rows import INPUT_IDS, LABELS, PADDING, SEQ_LENGTHS, SOURCE
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import TrainingError
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import ShardSet
from sftkit.training.data.rows.row_limits import RowLimit
from sftkit.training.data.rows.split_rows import SplitRows
from sftkit.training.data.rows.token_layouts import LAYOUT_COLUMNS


def open_split(
    shards: ShardSet,
    split: str,
    vocabulary_size: int,
    limit: RowLimit | None,
    max_cached_tokens: int,
    *,
    streaming: bool = False,
    details: Collection[str] = (),
) -> SplitRows:
    """Locate the rows of one split; no row is read before it is needed.

    Args:
        shards: the files.
        split: `train` or `validation`.
        vocabulary_size: rows of the model's embedding; every token id is below it.
        limit: the longest sequence; None for any length.
        max_cached_tokens: how many tokens of row groups stay in memory.
        streaming: read the footer of a file only when the file is reached, if a manifest records how many rows it has.
        details: those of `DETAIL_COLUMNS` that are used if the files have them; the numbers in `source` need a manifest
            that names them.

    Raises:
        TrainingError: the split has no token columns, or no rows, or weights of tokens that are not used.
        SourceError: a file cannot be read, or is not Parquet.
    """
    known: tuple[str, ...] = (INPUT_IDS, LABELS, SEQ_LENGTHS, PADDING)
    sources = shards.manifest.source_names if shards.manifest is not None and SOURCE in details else ()
    known = (*known, *(name for name in details if name != SOURCE or sources))
    existing = _check_columns(shards, split, details)
    if shards.manifest is None or (_is_for_other_trainer(shards.manifest) and SEQ_LENGTHS not in existing):
        known = (*known, *LAYOUT_COLUMNS)  # what tells padding and packs in the columns of other trainers
    columns = tuple(name for name in known if name in existing)
    manifest_rows = _manifest_rows(shards, split) if streaming else None
    rows = SplitRows(
        f"{shards.root} ({split})",
        shards.splits[split],
        vocabulary_size,
        limit,
        max_cached_tokens,
        columns=columns,
        manifest_rows=manifest_rows,
        source_names=sources,
    )
    if manifest_rows is None:
        rows.locate_all()
    if not len(rows):
        raise TrainingError(f"{shards.root}: the {split} split has no rows")
    return rows


def _is_for_other_trainer(manifest: Manifest) -> bool:
    return bool(manifest.config.get("parquet_columns", SFTKIT) != SFTKIT)


def _manifest_rows(shards: ShardSet, split: str) -> list[int] | None:
    """Rows of each file of a split as the manifest records them."""
    if shards.manifest is None:
        return None
    rows = {shard.file: shard.rows for shard in shards.manifest.splits[split].shards}
    return [rows[path.name] for path in shards.splits[split]]


def _check_columns(shards: ShardSet, split: str, details: Collection[str]) -> list[str]:
    """The columns of a split, which must include token columns."""
    if not shards.splits.get(split):
        existing = ", ".join(shards.splits) or "none"
        raise TrainingError(f"{shards.root}: there is no {split} split (existing splits: {existing})")
    names = shards.column_names(split)
    missing = [name for name in (INPUT_IDS, LABELS) if name not in names]
    if missing:
        raise TrainingError(
            f"{shards.splits[split][0]}: no column {' and no column '.join(missing)} (columns: {', '.join(names)});"
            " use `sftkit preprocess` to make shards with both"
        )
    if LOSS_WEIGHTS in names and LOSS_WEIGHTS not in details:
        raise TrainingError(
            f"{shards.splits[split][0]}: has {LOSS_WEIGHTS}, which only `sftkit train` applies; make shards without "
            "them: no loss_weight in the data config, and no weights of messages other than 0 and 1"
        )
    return names
