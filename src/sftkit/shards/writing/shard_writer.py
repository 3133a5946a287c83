"""Writes shards: contiguous ranges of the final row order, balanced by tokens, in the formats that are asked for.

Rows are gathered and written in parts of about `ROW_GROUP_BYTES` of tokens or text: the row groups of Parquet files.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from sftkit.core.progress import Done, Report, no_report
from sftkit.core.rows import Offsets
from sftkit.errors import DataError
from sftkit.shards.manifest import FormatFile
from sftkit.shards.staging.staged_unit import Int32Array
from sftkit.shards.writing.row_gatherer import RowGatherer, SequenceSelection
from sftkit.shards.writing.shard_format import ShardFormat, ShardPlace, WrittenSplit, new_file
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.storage.dataset_files import is_format_file, is_shard_name
from sftkit.storage.paths import AnyPath

T = TypeVar("T")

ROW_GROUP_BYTES = 16 << 20
_BYTES_PER_TOKEN = 8  # an id and its label


@dataclass(frozen=True)
class ShardTask:
    """One shard to write."""

    place: ShardPlace
    sequences: SequenceSelection

    def __str__(self) -> str:
        return self.place.name


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
    """Return the name of a shard without a suffix, in the convention of Hub data sets.

    Example:
        >>> shard_name("train", 0, 3)
        'train-00000-of-00003'
    """
    return f"{split}-{number:05d}-of-{count:05d}"


@dataclass(frozen=True)
class WrittenShard:
    """What a shard holds, and its files in each format."""

    rows: int
    """Rows, or packs."""
    tokens: int
    """0 for text."""
    trained_tokens: int
    files: Mapping[str, tuple[FormatFile, ...]]
    """By the name of the format."""


class ShardWriter:
    """Writes shards of one layout, each in all formats at once, so that staged rows are read once.

    A callable, to be run as the function of `Runner.run_reporting`. Unpickling returns the same writer for all shards
    that a process writes, so that each process indexes a staged unit only once.
    """

    def __init__(self, layout: ShardLayout, formats: Mapping[str, ShardFormat]) -> None:
        self._layout = layout
        self._formats = formats
        self._gatherer = RowGatherer(layout)
        self._pickled: bytes | None = None

    def __reduce__(self) -> tuple[Callable[[bytes], ShardWriter], tuple[bytes]]:
        self._pickled = self._pickled or pickle.dumps((self._layout, dict(self._formats)))
        return _process_writer, (self._pickled,)

    def __call__(self, task: ShardTask, report: Report = no_report) -> WrittenShard:
        """Write the files of one shard, and report after each part; a step is a row.

        Raises:
            OSError: a staged unit cannot be read, or a file cannot be written.
            DataError: a file cannot be read back.
        """
        rows, tokens, trained = 0, 0, 0
        with ExitStack() as opened:
            files = {
                name: opened.enter_context(each.open(task.place, task.sequences))
                for name, each in self._formats.items()
            }
            value_bytes = 1 if self._layout.text_column is not None else _BYTES_PER_TOKEN
            groups = _row_groups(task.sequences.row_sizes, value_bytes)
            tables = (self._gatherer.gather(task.sequences.slice(start, stop)) for start, stop in groups)
            for part in prefetch(tables):
                for file in files.values():
                    file.write(part)
                rows, tokens = rows + part.table.num_rows, tokens + part.tokens
                trained += part.trained_tokens
                report(Done(rows, rows, tokens))
            return WrittenShard(rows, tokens, trained, {name: file.finish() for name, file in files.items()})


@lru_cache(maxsize=1)
def _process_writer(pickled: bytes) -> ShardWriter:
    """Return the writer of this process; a process works for one run at a time."""
    return ShardWriter(*pickle.loads(pickled))


def write_indexes(
    root: AnyPath,
    formats: Mapping[str, ShardFormat],
    sequences: Mapping[str, SequenceSelection],
    shards: Mapping[str, Sequence[WrittenShard]],
) -> dict[str, tuple[FormatFile, ...]]:
    """Write the files in which formats describe all shards.

    Args:
        root: the directory that the shards are in.
        formats: by name.
        sequences: the rows of each split.
        shards: those of each split, in row order.

    Returns:
        All files of each format other than those in the directory itself, by the name of the format.

    Raises:
        OSError: a file cannot be written.
        DataError: a format of another package gives its files names that runs do not recognize.
    """
    found = {}
    for name, each in formats.items():
        splits = {
            split: WrittenSplit(sequences[split], tuple(file for shard in written for file in shard.files[name]))
            for split, written in shards.items()
        }
        files = [file for split in splits.values() for file in split.files]
        for path, content in each.index(splits).items():
            with new_file(root, path) as file:
                file.write(content)
            files.append(file.record(None))
        wrong = next((each.file for each in files if not _may_be_file_of(name, each.file)), None)
        if wrong is not None:
            raise DataError(f"output_format={name}: writes {wrong!r}, which is no name for a shard; fix the package")
        found[name] = tuple(each for each in files if "/" in each.file)
    return {name: files for name, files in found.items() if files}


def _may_be_file_of(name: str, file: str) -> bool:
    return is_shard_name(file) or (is_format_file(file) and file.startswith(f"{name}/"))


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
