"""Staged rows in a given order -> Parquet shards: contiguous, balanced by tokens, zstd, row groups sized in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq

from sftkit.errors import DataError
from sftkit.rows import Offsets
from sftkit.shards.files import sha256_of_file
from sftkit.shards.gathering import Gatherer
from sftkit.shards.layout import Layout
from sftkit.shards.manifest import ShardInfo
from sftkit.shards.sequences import Sequences

T = TypeVar("T")

ROW_GROUP_BYTES = 16 << 20
_BYTES_PER_TOKEN = 8  # an id and its label


@dataclass(frozen=True)
class ShardTask:
    """One shard to write."""

    path: Path
    sequences: Sequences

    def __str__(self) -> str:
        return self.path.name


def shard_bounds(sizes: Offsets, count: int, what: str = "rows") -> list[int]:
    """Cut rows into contiguous shards of nearly equal size.

    Args:
        sizes: tokens of each row in order, shape (rows,).
        count: number of shards; every shard gets at least one row.
        what: what to call them in the error.

    Returns:
        count + 1 row positions, from 0 to the number of rows.

    Raises:
        DataError: there are fewer rows than shards.
    """
    rows = len(sizes)
    if rows < count:
        raise DataError(f"{rows} {what} cannot fill {count} shards; ask for at most {rows}")
    ends = np.cumsum(sizes, dtype=np.float64)
    bounds = [0]
    for shard in range(1, count):
        target = ends[-1] * shard / count
        after = int(np.searchsorted(ends, target)) + 1
        before = after - 1
        nearest = before if before and target - ends[before - 1] <= ends[min(after, rows) - 1] - target else after
        bounds.append(min(max(nearest, bounds[-1] + 1), rows - (count - shard)))
    return [*bounds, rows]


def shard_name(split: str, number: int, count: int) -> str:
    """`train-00000-of-00003.parquet`, as Hub data sets are named."""
    return f"{split}-{number:05d}-of-{count:05d}.parquet"


def write_shard(layout: Layout, task: ShardTask) -> ShardInfo:
    """Gather sequences into one Parquet file.

    Raises:
        OSError: the file cannot be written.
    """
    gatherer = Gatherer(layout)
    rows = tokens = trained = 0
    # Ids hardly repeat within a page: a dictionary of them would only cost time.
    writer = pq.ParquetWriter(
        task.path, layout.schema, compression="zstd", use_dictionary=layout.repetitive_columns, write_statistics=False
    )
    with writer:
        groups = _row_groups(task.sequences.row_sizes, 1 if layout.text_column is not None else _BYTES_PER_TOKEN)
        gathered = (gatherer.gather(task.sequences.part(start, stop)) for start, stop in groups)
        for part in one_ahead(gathered):
            writer.write_table(part.table, row_group_size=part.table.num_rows)
            rows, tokens, trained = rows + part.table.num_rows, tokens + part.tokens, trained + part.trained_tokens
    return ShardInfo(
        file=task.path.name,
        rows=rows,
        tokens=tokens,
        trained_tokens=trained,
        bytes=task.path.stat().st_size,
        sha256=sha256_of_file(task.path),
    )


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item


def _row_groups(sizes: Offsets, bytes_per_unit: int) -> Iterator[tuple[int, int]]:
    """Row positions of groups that hold about ROW_GROUP_BYTES each."""
    ends = np.cumsum(sizes, dtype=np.int64) * bytes_per_unit
    start = 0
    while start < len(sizes):
        begun = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, begun + ROW_GROUP_BYTES, side="right")), start + 1)
        yield start, stop
        start = stop
