"""Arrow record batches -> batches of rows: token columns stay flat, all others become Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.core.row_log import RowLog
from sftkit.core.rows import TOKEN_COLUMNS, Batch, Ragged, Row, lengths_to_offsets
from sftkit.sandbox.memory import run_with_memory_limit
from sftkit.sources.source_file import BATCH_BYTES, BATCH_ROWS, ReadLimits

_SHOWN_BYTES = 2000  # of a text that is none
_MEMORY, _MEMORY_PER_BYTE = 1 << 30, 64  # for the values of a batch; nulls and truths take a bit each, or nothing

PIECE_ROWS = 256
"""Rows that are decoded at once: what memory takes where rows are long. Fewer would cost time where they are short."""


def split_batch(batch: pa.RecordBatch, most: int = BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """A record batch as views of at most `PIECE_ROWS` rows and, unless it is one row, `BATCH_BYTES` or `most`."""
    for start in range(0, batch.num_rows, PIECE_ROWS):
        yield from _halved(batch.slice(start, PIECE_ROWS), min(BATCH_BYTES, most))


def _halved(piece: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    half = piece.num_rows // 2
    if half and piece.nbytes > most:
        yield from _halved(piece.slice(0, half), most)
        yield from _halved(piece.slice(half), most)
    else:
        yield piece


def slice_rows(pieces: Iterable[pa.RecordBatch], start: int, rows: int | None) -> Iterator[pa.RecordBatch]:
    """Of all rows of these pieces, so many (None: all) from number `start` on, counted from 0."""
    position, stop = 0, None if rows is None else start + rows
    for piece in pieces:
        count = piece.num_rows
        first, last = max(start - position, 0), count if stop is None else min(stop - position, count)
        if first < last:
            yield piece if last - first == count else piece.slice(first, last - first)
        position += count
        if stop is not None and position >= stop:
            return


def to_batches(pieces: Iterable[pa.RecordBatch], first_number: int, limits: ReadLimits, log: RowLog) -> Iterator[Batch]:
    """Gather small record batches of one schema into batches of bounded rows and bytes, numbered on from the first.

    Rows that are too long, or hold text that is no UTF-8, go to the log.
    """
    pending: list[pa.RecordBatch] = []
    number, rows, size = first_number, 0, 0
    for piece in pieces:
        is_too_long = piece.num_rows == 1 and piece.nbytes > limits.row_bytes
        full = rows + piece.num_rows > BATCH_ROWS or size + piece.nbytes > BATCH_BYTES
        if pending and (full or is_too_long):
            yield from _to_batches(pending, number, log)
            number, rows, size = number + rows, 0, 0
            pending.clear()
        if is_too_long:
            log.quarantine(number, limits.too_long_reason(f"{piece.nbytes:,} bytes"), _sizes(piece))
            number += 1
            continue
        pending.append(piece)
        rows += piece.num_rows
        size += piece.nbytes
    if rows:
        yield from _to_batches(pending, number, log)


def _sizes(row: pa.RecordBatch) -> dict[str, str]:
    return {name: f"{column.nbytes:,} bytes" for name, column in zip(row.schema.names, row.columns, strict=True)}


def _to_batches(pieces: list[pa.RecordBatch], first_number: int, log: RowLog) -> Iterator[Batch]:
    """Pieces as one batch; where a text is no UTF-8, or a value none of Python's, row by row."""
    try:
        yield _within_bounds(pieces, first_number)
        return
    except (ValueError, OverflowError, MemoryError):
        rows = (piece.slice(place, 1) for piece in pieces for place in range(piece.num_rows))
    for number, row in enumerate(rows, first_number):
        try:
            yield _within_bounds([row], number)
        except UnicodeDecodeError as error:
            log.quarantine(number, "invalid UTF-8", error.object[:_SHOWN_BYTES].decode("utf-8", errors="replace"))
        except (ValueError, OverflowError) as error:  # a date beyond the calendar
            log.quarantine(number, f"a value that cannot be read: {error}", _sizes(row))
        except MemoryError:
            log.quarantine(number, "the row becomes more values than memory is allowed for it", _sizes(row))


def _within_bounds(pieces: list[pa.RecordBatch], first_number: int) -> Batch:
    size = sum(piece.nbytes for piece in pieces)
    table = pa.Table.from_batches(pieces)
    return run_with_memory_limit(_MEMORY + _MEMORY_PER_BYTE * size, partial(_to_batch, table, first_number))


def _to_batch(table: pa.Table, first_number: int) -> Batch:
    tokens: dict[str, Ragged] = {}
    names = []
    for name in table.schema.names:
        column = _as_ragged(table.column(name)) if name in TOKEN_COLUMNS else None
        if column is None:
            names.append(name)
        else:
            tokens[name] = column
    columns = [[value for chunk in column.chunks for value in _values(chunk)] for column in table.select(names).columns]
    rows: list[Row]
    if names:
        rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    else:
        rows = [{} for _ in range(table.num_rows)]
    return Batch(rows, np.arange(first_number, first_number + table.num_rows), tokens)


def _as_ragged(column: pa.ChunkedArray) -> Ragged | None:
    """A column of integer lists without nulls as flat arrays, or None when it is something else."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type) or column.null_count:
        return None
    whole = column.combine_chunks()
    lengths = whole.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    values = whole.flatten()
    if values.null_count:
        return None
    try:
        return Ragged(values.cast(pa.int32()).to_numpy(zero_copy_only=False), lengths_to_offsets(lengths))
    except pa.ArrowInvalid:
        return None  # ids beyond int32: left as Python lists, and refused as such further on


def _values(array: pa.Array) -> list[Any]:
    """What `array.to_pylist()` gives, without the null fields of structs; maps as objects.

    Arrow gives every struct of a column all the fields that any of them has, and null where one had none. A chat
    template would print them.
    """
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_primitive(kind):
        return list(array.to_pylist())
    if pa.types.is_struct(kind) and kind.num_fields == len({field.name for field in kind}) > 0:
        return _objects(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists(array)
    return [_pruned(value) for value in array.to_pylist()]


def _objects(array: pa.StructArray) -> list[Any]:
    names = [field.name for field in array.type]
    fields = [_values(field) for field in array.flatten()]
    objects = [
        {name: value for name, value in zip(names, values, strict=True) if value is not None}
        for values in zip(*fields, strict=True)
    ]
    if not array.null_count:
        return objects
    valid = array.is_valid().to_pylist()
    return [value if is_valid else None for value, is_valid in zip(objects, valid, strict=True)]


def _lists(array: pa.ListArray) -> list[Any]:
    items = _values(array.flatten())
    lists: list[Any] = []
    start = 0
    for length in array.value_lengths().to_pylist():
        lists.append(None if length is None else items[start : start + length])
        start += length or 0
    return lists


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pruned(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):  # an Arrow map is a list of pairs
            return {str(name): _pruned(item) for name, item in value}
        return [_pruned(item) for item in value]
    return value
