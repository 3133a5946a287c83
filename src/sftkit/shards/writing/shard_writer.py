"""Staged rows in a given order -> Parquet shards: contiguous, balanced by tokens, zstd, row groups sized in bytes."""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.core.rows import Offsets
from sftkit.errors import DataError
from sftkit.shards.manifest import ShardInfo
from sftkit.shards.staging.staged_unit import Int32Array
from sftkit.shards.writing.row_gatherer import RowGatherer, SequenceSelection
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.storage.files import atomic_replace, sha256_of_file
from sftkit.storage.paths import AnyPath

T = TypeVar("T")

ROW_GROUP_BYTES = 16 << 20
_BYTES_PER_TOKEN = 8  # an id and its label


@dataclass(frozen=True)
class ShardTask:
    """One shard to write."""

    path: AnyPath
    sequences: SequenceSelection

    def __str__(self) -> str:
        return self.path.name


def shard_bounds(sizes: Int32Array | Offsets, count: int, what: str = "rows") -> list[int]:
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
        raise DataError(
            f"{rows} {what} cannot fill {count} shards; ask for at most {rows} "
            "(num_dataset_shards, num_eval_dataset_shards)"
        )
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


class ShardWriter:
    """Writes shards of a layout, one after the other. Sent to another process it is the same one for all its shards
    there, so that each process looks into a staged unit once.
    """

    def __init__(self, layout: ShardLayout) -> None:
        self._layout = layout
        self._gatherer = RowGatherer(layout)
        self._pickled: bytes | None = None

    def __reduce__(self) -> tuple[Callable[[bytes], ShardWriter], tuple[bytes]]:
        self._pickled = self._pickled or pickle.dumps(self._layout)
        return _shard_writer, (self._pickled,)

    def __call__(self, task: ShardTask) -> ShardInfo:
        """Gather sequences into one Parquet file.

        Raises:
            OSError: the file cannot be written.
        """
        layout, rows, tokens, trained = self._layout, 0, 0, 0
        # Ids hardly repeat within a page: a dictionary of them would only cost time.
        options = {"compression": "zstd", "use_dictionary": layout.dictionary_columns, "write_statistics": False}
        with atomic_replace(task.path, uuid.uuid4().hex[:8]) as aside:
            with pa.OSFile(os.fsencode(aside), "w") as sink, pq.ParquetWriter(sink, layout.schema, **options) as writer:
                size = 1 if layout.text_column is not None else _BYTES_PER_TOKEN
                groups = _row_groups(task.sequences.row_sizes, size)
                gathered = (self._gatherer.gather(task.sequences.slice(start, stop)) for start, stop in groups)
                for part in prefetch(gathered):
                    writer.write_table(part.table, row_group_size=part.table.num_rows)
                    rows, tokens = rows + part.table.num_rows, tokens + part.tokens
                    trained += part.trained_tokens
            written, sha256 = aside.stat().st_size, sha256_of_file(aside)
        return ShardInfo(task.path.name, rows, tokens, trained, written, sha256)


@lru_cache(maxsize=1)
def _shard_writer(pickled: bytes) -> ShardWriter:
    """The one of this process, which works for one run."""
    return ShardWriter(pickle.loads(pickled))


def write_shard(layout: ShardLayout, task: ShardTask) -> ShardInfo:
    """Gather sequences into one Parquet file, as a `ShardWriter` does."""
    return ShardWriter(layout)(task)


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item


def _row_groups(sizes: Int32Array | Offsets, bytes_per_unit: int) -> Iterator[tuple[int, int]]:
    """Row positions of groups that hold about ROW_GROUP_BYTES each."""
    ends = np.cumsum(sizes, dtype=np.int64) * bytes_per_unit
    start = 0
    while start < len(sizes):
        begun = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, begun + ROW_GROUP_BYTES, side="right")), start + 1)
        yield start, stop
        start = stop
