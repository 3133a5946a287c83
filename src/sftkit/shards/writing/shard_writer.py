"""Writes Parquet shards: contiguous ranges of the final row order, balanced by tokens.

Shards are compressed with zstd; row groups hold about `ROW_GROUP_BYTES` of tokens or text, and page dictionaries are
used for retained columns only. The bytes of a shard depend on its rows alone.
"""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.core.error_text import first_line
from sftkit.core.progress import Done, Report, no_report
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


def shard_bounds(sizes: Int32Array | Offsets, count: int, unit: str = "rows") -> list[int]:
    """Cut rows into contiguous shards of nearly equal size.

    Args:
        sizes: tokens of each row in order, shape (rows,).
        count: number of shards; every shard gets at least one row.
        unit: what rows are called in the error message.

    Returns:
        count + 1 row indices, from 0 to the number of rows.

    Raises:
        DataError: there are fewer rows than shards.

    Example:
        >>> shard_bounds(np.array([5, 1, 1, 1, 4], np.int32), 2)
        [0, 2, 5]
    """
    rows = len(sizes)
    if rows < count:
        raise DataError(
            f"{rows} {unit} cannot fill {count} shards; use at most {rows} "
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
    """Return the file name of a shard, in the convention of Hub data sets.

    Example:
        >>> shard_name("train", 0, 3)
        'train-00000-of-00003.parquet'
    """
    return f"{split}-{number:05d}-of-{count:05d}.parquet"


class ShardWriter:
    """Writes shards of one layout. A callable, to be run as the function of `Runner.run_reporting`.

    Unpickling returns the same writer for all shards that a process writes, so that each process indexes a staged unit
    only once.
    """

    def __init__(self, layout: ShardLayout) -> None:
        self._layout = layout
        self._gatherer = RowGatherer(layout)
        self._pickled: bytes | None = None

    def __reduce__(self) -> tuple[Callable[[bytes], ShardWriter], tuple[bytes]]:
        self._pickled = self._pickled or pickle.dumps(self._layout)
        return _process_writer, (self._pickled,)

    def __call__(self, task: ShardTask, report: Report = no_report) -> ShardInfo:
        """Write one Parquet file, and report after each row group; a step is a row.

        Raises:
            OSError: a staged unit cannot be read, or the file cannot be written.
            DataError: the file cannot be read back.
        """
        layout, rows, tokens, trained = self._layout, 0, 0, 0
        # Ids hardly repeat within a page, so a dictionary of them would only cost time.
        options = {
            "compression": "zstd",
            "use_dictionary": layout.dictionary_columns,
            "column_encoding": layout.encodings or None,
            "write_statistics": False,
        }
        with atomic_replace(task.path, uuid.uuid4().hex[:8]) as temporary:
            with (
                pa.OSFile(os.fsencode(temporary), "w") as sink,
                pq.ParquetWriter(sink, layout.parquet_schema, **options) as writer,
            ):
                value_bytes = 1 if layout.text_column is not None else _BYTES_PER_TOKEN
                groups = _row_groups(task.sequences.row_sizes, value_bytes)
                tables = (self._gatherer.gather(task.sequences.slice(start, stop)) for start, stop in groups)
                for part in prefetch(tables):
                    writer.write_table(layout.parquet_table(part.table), row_group_size=part.table.num_rows)
                    rows, tokens = rows + part.table.num_rows, tokens + part.tokens
                    trained += part.trained_tokens
                    report(Done(rows, rows, tokens))
            _check_readable(temporary, task, rows, layout)
            size, sha256 = temporary.stat().st_size, sha256_of_file(temporary)
        return ShardInfo(task.path.name, rows, tokens, trained, size, sha256)


def _check_readable(path: Path, task: ShardTask, rows: int, layout: ShardLayout) -> None:
    """Open a shard as its readers do, before it is published: its footer, its schema, and the first of its rows."""
    try:
        with pa.OSFile(os.fsencode(path)) as source:
            file = pq.ParquetFile(source)
            first = next(file.iter_batches(batch_size=1))
            is_right = file.metadata.num_rows == rows and first.schema.names == layout.parquet_schema.names
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise DataError(
            f"{task}: this shard cannot be read back ({first_line(error)}); convert retained columns with objects and "
            "lists to text"
        ) from None
    if not is_right:
        raise DataError(f"{task}: this shard does not hold what was written; check the disk and run the command again")


@lru_cache(maxsize=1)
def _process_writer(pickled: bytes) -> ShardWriter:
    """Return the writer of this process; a process works for one run at a time."""
    return ShardWriter(pickle.loads(pickled))


def write_shard(layout: ShardLayout, task: ShardTask) -> ShardInfo:
    """Write one Parquet file with a new `ShardWriter`."""
    return ShardWriter(layout)(task)


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the items of an iterator, making each in a thread while the caller uses the one before it."""
    with ThreadPoolExecutor(1) as thread:
        pending = thread.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = thread.submit(next, items, None)
            yield item


def _row_groups(sizes: Int32Array | Offsets, value_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the row ranges [start, stop) of row groups of about ROW_GROUP_BYTES each."""
    ends = np.cumsum(sizes, dtype=np.int64) * value_bytes
    start = 0
    while start < len(sizes):
        base = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, base + ROW_GROUP_BYTES, side="right")), start + 1)
        yield start, stop
        start = stop
