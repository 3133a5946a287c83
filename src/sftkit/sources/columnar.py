"""Parquet and Arrow files: record batches -> rows, token columns kept flat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.errors import SourceError
from sftkit.rows import TOKEN_COLUMNS, Batch, Ragged, Row, RowLog, offsets_of
from sftkit.sources.model import BATCH_ROWS, Range, Scan, SourceFile
from sftkit.sources.opening import open_bytes, sha256_of

_ARROW_FILE_MAGIC = b"ARROW1"


class Parquet:
    """Ranges are row groups."""

    def scan(self, file: SourceFile, unit_size: int) -> Scan:
        """Gather row groups until they hold `unit_size` uncompressed bytes."""
        with _understood(file), open_bytes(file) as stream:
            metadata = pq.ParquetFile(stream).metadata
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
        return Scan(sha256_of(file), _gather(sizes, unit_size))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Decode the row groups a few rows at a time."""
        with _understood(file), open_bytes(file) as stream:
            groups = list(range(part.start, part.stop))
            batches = pq.ParquetFile(stream).iter_batches(BATCH_ROWS, row_groups=groups)
            yield from _numbered(batches, part.first_number)


class Arrow:
    """Arrow IPC: ranges are record batches of the file format; the stream format, which has no index, is one range."""

    def scan(self, file: SourceFile, unit_size: int) -> Scan:
        """Gather record batches until they hold `unit_size` bytes."""
        with _understood(file), open_bytes(file) as stream:
            if not _is_file_format(stream):
                ranges: tuple[Range, ...] = (Range(0, -1, 1, file.size),)
            else:
                reader = pa.ipc.open_file(stream)
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
                ranges = _gather([(batch.num_rows, batch.nbytes) for batch in batches], unit_size)
        return Scan(sha256_of(file), ranges)

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """The record batches, cut into pieces of bounded rows."""
        with _understood(file), open_bytes(file) as stream:
            if part.stop < 0:
                batches = iter(pa.ipc.open_stream(stream))
            else:
                reader = pa.ipc.open_file(stream)
                batches = (reader.get_batch(index) for index in range(part.start, part.stop))
            pieces = (
                batch.slice(start, BATCH_ROWS) for batch in batches for start in range(0, batch.num_rows, BATCH_ROWS)
            )
            yield from _numbered(pieces, part.first_number)


def _gather(sizes: list[tuple[int, int]], unit_size: int) -> tuple[Range, ...]:
    """(rows, bytes) of consecutive pieces -> ranges of at least `unit_size` bytes."""
    ranges: list[Range] = []
    start, first_number, rows, size = 0, 1, 0, 0
    for index, (piece_rows, piece_size) in enumerate(sizes):
        rows += piece_rows
        size += piece_size
        if size >= unit_size or index == len(sizes) - 1:
            ranges.append(Range(start, index + 1, first_number, size))
            start, first_number, rows, size = index + 1, first_number + rows, 0, 0
    return tuple(ranges)


def _numbered(batches: Iterator[pa.RecordBatch], first_number: int) -> Iterator[Batch]:
    number = first_number
    for batch in batches:
        yield _to_batch(batch, number)
        number += batch.num_rows


def _to_batch(batch: pa.RecordBatch, first_number: int) -> Batch:
    tokens: dict[str, Ragged] = {}
    names = []
    for name in batch.schema.names:
        column = _as_ragged(batch.column(name)) if name in TOKEN_COLUMNS else None
        if column is None:
            names.append(name)
        else:
            tokens[name] = column
    rows: list[Row] = [without_planted_nulls(row) for row in batch.select(names).to_pylist()] if names else []
    if not names:
        rows = [{} for _ in range(batch.num_rows)]
    return Batch(rows, np.arange(first_number, first_number + batch.num_rows), tokens)


def _as_ragged(column: pa.Array) -> Ragged | None:
    """A column of integer lists without nulls as flat arrays, or None when it is something else."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type) or column.null_count:
        return None
    lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    values = column.flatten()
    if values.null_count:
        return None
    try:
        return Ragged(values.cast(pa.int32()).to_numpy(zero_copy_only=False), offsets_of(lengths))
    except pa.ArrowInvalid:
        return None  # ids beyond int32: left as Python lists, and refused as such further on


def without_planted_nulls(row: Row) -> Row:
    """Drop null fields of nested structs; the row's own null columns stay.

    Arrow gives every struct of a column all the fields that any of them has, and null where one had none. A chat
    template would print them.
    """
    return {name: _pruned(value) for name, value in row.items()}


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pruned(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):  # an Arrow map is a list of pairs
            return {str(name): _pruned(item) for name, item in value}
        return [_pruned(item) for item in value]
    return value


def _is_file_format(stream: IO[bytes]) -> bool:
    magic = stream.read(len(_ARROW_FILE_MAGIC))
    stream.seek(0)
    return magic == _ARROW_FILE_MAGIC


@contextmanager
def _understood(file: SourceFile) -> Iterator[None]:
    """Arrow's own errors as one sentence that names the file."""
    try:
        yield
    except pa.ArrowException as error:
        kind = "Parquet" if file.format == "parquet" else "Arrow"
        raise SourceError(f"{file.path}: cannot be read as {kind}: {str(error).splitlines()[0]}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{file.path}: a text column holds invalid UTF-8") from None
