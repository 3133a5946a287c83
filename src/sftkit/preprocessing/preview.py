"""Previews a data config: processes its first rows, and writes them as shards into a temporary directory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from sftkit.config.commands import InspectConfig, to_preprocess_config
from sftkit.core.accounting.removed_row import RemovedRow
from sftkit.core.progress import Stopwatch
from sftkit.core.row_log import RowLog
from sftkit.core.splits import TRAIN
from sftkit.core.startup.transformers_import import import_transformers
from sftkit.errors import DataError
from sftkit.ordering.packing import is_packed
from sftkit.preprocessing.plan.plan import Plan
from sftkit.preprocessing.planning import plan
from sftkit.preprocessing.shard_columns import shard_columns_of
from sftkit.shards.formats.parquet_shards import write_shard
from sftkit.shards.reading import ShardSet
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.staging.unit_writer import UnitWriter
from sftkit.shards.writing.row_gatherer import SequenceSelection
from sftkit.shards.writing.shard_format import ShardPlace
from sftkit.shards.writing.shard_writer import ShardTask, shard_name

_log = logging.getLogger(__name__)

SAMPLE_ROWS = 100
"""The least number of rows to process of each data set, so that there are enough to search and to sample from."""


def preview_shards(config: InspectConfig, scratch: Path) -> ShardSet:
    """Process the first rows of every data set, and write them alternately into one train split.

    The rows are not packed, because which rows share a pack depends on all rows.

    Args:
        config: with the data to preview.
        scratch: the temporary directory.

    Raises:
        ConfigError, SourceError, DataError, TokenizerError: as `preprocess` would.
    """
    import_transformers()
    # The few rows are done before a fast engine would be loaded.
    planned = plan(replace(to_preprocess_config(config, str(scratch)), engine="reference"))
    wanted = max(SAMPLE_ROWS, config.rows, (config.row or 0) + 1)
    staged = [
        _stage_sample(planned, dataset.name, number, scratch, wanted)
        for number, dataset in enumerate(planned.recipe.datasets)
    ]
    filled = [unit for unit in staged if unit.rows]
    if not filled:
        raise DataError(
            "no rows left to show: every row that was tried is dropped or cannot be used; run preprocess to see why"
        )
    rows = _alternating([unit.rows for unit in filled])
    sizes = np.concatenate([unit.sizes for unit in filled])[rows]
    place = ShardPlace(scratch, TRAIN, shard_name(TRAIN, 0, 1))
    shard = write_shard(shard_columns_of(filled), ShardTask(place, SequenceSelection(rows, sizes)))
    packing_note = ", before they are packed" if is_packed(config) else ""
    name = f"the first rows of {_data_name(config)}{packing_note} (preview, nothing written)"
    return ShardSet(scratch, {TRAIN: (scratch / shard.file,)}, None, name)


def _stage_sample(planned: Plan, dataset: str, number: int, scratch: Path, wanted: int) -> StagedUnit:
    log = RowLog()
    count = 0
    units = [unit for file in planned.files if file.file.dataset == dataset for unit in file.units]
    with UnitWriter(scratch / f"sample-{number}.arrow") as writer:
        for unit in units:
            for batch, text_field in planned.pipeline.process(unit, log, Stopwatch()):
                if len(batch):
                    writer.write(batch, text_field, log)
                count += len(batch)
                if count >= wanted:
                    break
            _warn_of_bad_rows(unit.file.name, log.bad)
            log.bad.clear()
            if count >= wanted:
                break
    return writer.finish(number, log, {}, {})


def _warn_of_bad_rows(file: str, rows: Sequence[RemovedRow]) -> None:
    """Log a warning for each reason why rows cannot be used, with the first of these rows and their number."""
    counts = Counter(row.reason for row in rows)
    for row in rows:
        count = counts.pop(row.reason, 0)  # 0 for the rows after the first
        if count:
            others = {1: "", 2: " (and 1 more row)"}.get(count, f" (and {count - 1:,} more rows)")
            _log.warning("%s:%d: %s%s", file, row.number, row.reason, others)


def _data_name(config: InspectConfig) -> str:
    return config.data_config_path or ", ".join(config.training_data_path) or "the data config"


def _alternating(counts: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return row indices that take one row of each data set in turn."""
    bases = np.cumsum([0, *counts[:-1]])
    columns = [range(base, base + count) for base, count in zip(bases, counts, strict=True)]
    return np.array([row for turn in zip_longest(*columns) for row in turn if row is not None], np.int64)
