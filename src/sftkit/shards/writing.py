"""Staged rows in a given order -> Parquet shards: contiguous, balanced by tokens, zstd, row groups sized in bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.errors import DataError
from sftkit.rows import Offsets, Ragged, offsets_of
from sftkit.shards.arrays import list_array
from sftkit.shards.manifest import ShardInfo
from sftkit.shards.staged_reading import StagedReader
from sftkit.shards.staging import Counts

T = TypeVar("T")

ROW_GROUP_BYTES = 16 << 20
_BYTES_PER_TOKEN = 8  # an id and its label


@dataclass(frozen=True)
class Layout:
    """What the shards of a data set are made of: staged files in order, the rows of each, and the columns."""

    paths: tuple[Path, ...]
    rows: tuple[int, ...]
    token_columns: tuple[str, ...]
    text_column: str | None
    extras: pa.Schema

    @property
    def schema(self) -> pa.Schema:
        """The Parquet schema: token columns, then text, then what the config retains."""
        fields = [pa.field(name, pa.list_(pa.int32())) for name in self.token_columns]
        if self.text_column is not None:
            fields.append(pa.field(self.text_column, pa.string()))
        return pa.schema([*fields, *(_concrete(field) for field in self.extras)])


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: its rows by index into all staged rows, and the size and trained tokens of each."""

    path: Path
    rows: Offsets
    sizes: Counts
    trained: Counts

    def __str__(self) -> str:
        return self.path.name


def shard_bounds(sizes: Offsets, count: int) -> list[int]:
    """Cut rows into contiguous shards of nearly equal size.

    Args:
        sizes: tokens of each row in order, shape (rows,).
        count: number of shards; every shard gets at least one row.

    Returns:
        count + 1 row positions, from 0 to the number of rows.

    Raises:
        DataError: there are fewer rows than shards.
    """
    rows = len(sizes)
    if rows < count:
        raise DataError(f"{rows} rows cannot fill {count} shards; ask for at most {rows}")
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
    """Gather rows into one Parquet file.

    Raises:
        OSError: the file cannot be written.
    """
    readers = _Readers(layout)
    bases = np.concatenate(([0], np.cumsum(layout.rows)))
    # Ids hardly repeat within a page: a dictionary of them would only cost time.
    writer = pq.ParquetWriter(
        task.path, layout.schema, compression="zstd", use_dictionary=layout.extras.names, write_statistics=False
    )
    with writer:
        groups = _row_groups(task.sizes, _BYTES_PER_TOKEN if layout.text_column is None else 1)
        tables = (_gather(layout, task.rows[start:stop], bases, readers) for start, stop in groups)
        for table in one_ahead(tables):
            writer.write_table(table, row_group_size=table.num_rows)
    return ShardInfo(
        file=task.path.name,
        rows=len(task.rows),
        tokens=int(task.sizes.sum(dtype=np.int64)) if layout.text_column is None else 0,
        trained_tokens=int(task.trained.sum(dtype=np.int64)),
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


def sha256_of_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _row_groups(sizes: Counts, bytes_per_unit: int) -> Iterator[tuple[int, int]]:
    """Row positions of groups that hold about ROW_GROUP_BYTES each."""
    ends = np.cumsum(sizes, dtype=np.int64) * bytes_per_unit
    start = 0
    while start < len(sizes):
        begun = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, begun + ROW_GROUP_BYTES, side="right")), start + 1)
        yield start, stop
        start = stop


class _Readers:
    """The staged units of a layout, each looked into when it is first needed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._readers: dict[int, StagedReader] = {}

    def __getitem__(self, unit: int) -> StagedReader:
        if unit not in self._readers:
            self._readers[unit] = StagedReader(self._layout.paths[unit], self._layout.token_columns)
        return self._readers[unit]


def _gather(layout: Layout, rows: Offsets, bases: Offsets, readers: _Readers) -> pa.Table:
    units = np.searchsorted(bases, rows, side="right") - 1
    places = rows - bases[units]
    columns = [list_array(_gather_tokens(name, units, places, readers)) for name in layout.token_columns]
    if layout.text_column is not None:
        column = layout.text_column
        columns.append(pa.array(_in_order(units, places, lambda unit, some: readers[unit].texts(column, some))))
    if len(layout.extras):
        extras = _in_order(units, places, lambda unit, some: readers[unit].extras(some))
        for field in list(layout.schema)[len(columns) :]:
            columns.append(pa.array([row.get(field.name) for row in extras], field.type))
    return pa.Table.from_arrays(columns, schema=layout.schema)


def _gather_tokens(name: str, units: Offsets, rows: Offsets, readers: _Readers) -> Ragged:
    """Read rows out of their units, unit by unit; neighbours that were staged as neighbours are read in one go."""
    places, lengths = np.empty(len(units), np.int64), np.empty(len(units), np.int64)
    for unit in np.unique(units):
        chosen = units == unit
        places[chosen], lengths[chosen] = readers[int(unit)].places(name, rows[chosen])
    offsets = offsets_of(lengths)
    values = np.empty(int(offsets[-1]), np.int32)
    breaks = np.flatnonzero((np.diff(units) != 0) | (np.diff(places) != lengths[:-1] * values.itemsize)) + 1
    runs = np.stack([np.append(0, breaks), np.append(breaks, len(units))], axis=1)
    unit_of_run = units[runs[:, 0]]
    for unit in np.unique(unit_of_run):
        mine = runs[unit_of_run == unit].tolist()
        readers[int(unit)].read_tokens((int(places[a]), values[offsets[a] : offsets[b]]) for a, b in mine)
    return Ragged(values, offsets)


def _in_order(units: Offsets, places: Offsets, fetch: Callable[[int, Offsets], list[T]]) -> list[T]:
    """Fetch rows unit by unit and put them back in order."""
    result: dict[int, T] = {}
    for unit in np.unique(units):
        positions = np.flatnonzero(units == unit)
        result.update(zip(positions.tolist(), fetch(int(unit), places[positions]), strict=True))
    return [result[position] for position in range(len(units))]


def _concrete(field: pa.Field) -> pa.Field:
    """A column that was null in every row still needs a type that other tools can read.

    Raises:
        DataError: Parquet has no type for what it holds.
    """
    if _is_empty_struct(field.type):
        raise DataError(f"retained column {field.name!r} holds objects without a single key, which Parquet cannot hold")
    return pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field


def _is_empty_struct(kind: pa.DataType) -> bool:
    """Whether a type is, or holds, a struct without fields."""
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_is_empty_struct(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_list(kind) and _is_empty_struct(kind.value_type)
