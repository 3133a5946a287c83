"""Converting Arrow record batches to batches of rows: token columns stay arrays, others become Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.core.null_fields import without_null_fields
from sftkit.core.row_log import RowLog
from sftkit.core.rows import TOKEN_COLUMNS, Batch, Ragged, Row, lengths_to_offsets
from sftkit.sandbox.memory import run_with_memory_limit
from sftkit.sources.formats.arrow_json import Decoder, JsonTextError, json_decoders
from sftkit.sources.source_file import ReadLimits
from sftkit.sources.source_format import BATCH_BYTES, BATCH_ROWS

_SHOWN_BYTES = 2000  # of a text that is not UTF-8
_MEMORY, _MEMORY_PER_BYTE = 1 << 30, 64  # for the values of a batch; nulls and booleans take less than a byte in Arrow

PIECE_ROWS = 256
"""Rows to decode at once. More rows take more memory if they are long, fewer take more time if they are short."""


def split_batch(batch: pa.RecordBatch, limit: int = BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Split a record batch into views of at most `PIECE_ROWS` rows.

    Args:
        batch: The record batch.
        limit: Maximum size of a view in bytes, at most `BATCH_BYTES`. A view of a single row may be larger.
    """
    for start in range(0, batch.num_rows, PIECE_ROWS):
        yield from _halve(batch.slice(start, PIECE_ROWS), min(BATCH_BYTES, limit))


def _halve(piece: pa.RecordBatch, limit: int) -> Iterator[pa.RecordBatch]:
    half = piece.num_rows // 2
    if half and piece.nbytes > limit:
        yield from _halve(piece.slice(0, half), limit)
        yield from _halve(piece.slice(half), limit)
    else:
        yield piece


def slice_rows(pieces: Iterable[pa.RecordBatch], start: int, rows: int | None) -> Iterator[pa.RecordBatch]:
    """Yield `rows` rows (None: all) of consecutive record batches from index `start` on."""
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
    """Group small record batches of one schema into batches of limited size.

    Rows that are too long, or have text that is not UTF-8, go to the log.

    Args:
        pieces: The record batches, as `split_batch` yields them.
        first_number: Row number of the first row.
        limits: Limits on a row.
        log: Receives unreadable rows.
    """
    pending: list[pa.RecordBatch] = []
    number, rows, size = first_number, 0, 0
    for piece in pieces:
        is_too_long = piece.num_rows == 1 and piece.nbytes > limits.row_bytes
        is_full = rows + piece.num_rows > BATCH_ROWS or size + piece.nbytes > BATCH_BYTES
        if pending and (is_full or is_too_long):
            yield from _decode_pieces(pending, number, log)
            number, rows, size = number + rows, 0, 0
            pending.clear()
        if is_too_long:
            log.quarantine(number, limits.too_long_reason(f"{piece.nbytes:,} bytes"), _column_sizes(piece))
            number += 1
            continue
        pending.append(piece)
        rows += piece.num_rows
        size += piece.nbytes
    if rows:
        yield from _decode_pieces(pending, number, log)


def _column_sizes(row: pa.RecordBatch) -> dict[str, str]:
    return {name: f"{column.nbytes:,} bytes" for name, column in zip(row.schema.names, row.columns, strict=True)}


def _texts(row: pa.RecordBatch) -> dict[str, str]:
    return {name: str(column[0])[:_SHOWN_BYTES] for name, column in zip(row.schema.names, row.columns, strict=True)}


def _decode_pieces(pieces: list[pa.RecordBatch], first_number: int, log: RowLog) -> Iterator[Batch]:
    """Decode record batches as one batch; row by row if one of the rows cannot be decoded."""
    try:
        yield _decode(pieces, first_number)
        return
    except (ValueError, OverflowError, MemoryError):
        rows = (piece.slice(index, 1) for piece in pieces for index in range(piece.num_rows))
    for number, row in enumerate(rows, first_number):
        try:
            yield _decode([row], number)
        except UnicodeDecodeError as error:
            log.quarantine(number, "invalid UTF-8", error.object[:_SHOWN_BYTES].decode("utf-8", errors="replace"))
        except JsonTextError as error:
            log.quarantine(number, str(error), _texts(row))
        except (ValueError, OverflowError) as error:  # such as a date outside of Python's calendar
            log.quarantine(number, f"a value that cannot be read: {error}", _column_sizes(row))
        except MemoryError:
            log.quarantine(number, "decoding the row needs more memory than is allowed", _column_sizes(row))


def _decode(pieces: list[pa.RecordBatch], first_number: int) -> Batch:
    size = sum(piece.nbytes for piece in pieces)
    table = pa.Table.from_batches(pieces)
    batch = run_with_memory_limit(_MEMORY + _MEMORY_PER_BYTE * size, partial(_to_batch, table, first_number))
    return replace(batch, source_bytes=size)


def _to_batch(table: pa.Table, first_number: int) -> Batch:
    tokens: dict[str, Ragged] = {}
    names = []
    for name in table.schema.names:
        column = _to_ragged(table.column(name)) if name in TOKEN_COLUMNS else None
        if column is None:
            names.append(name)
        else:
            tokens[name] = column
    decoders = json_decoders(table.schema)
    columns = [_column_values(table.column(name), name, decoders.get(name)) for name in names]
    rows: list[Row]
    if names:
        rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    else:
        rows = [{} for _ in range(table.num_rows)]
    return Batch(rows, np.arange(first_number, first_number + table.num_rows), tokens)


def _column_values(column: pa.ChunkedArray, name: str, decode: Decoder | None) -> list[Any]:
    values = [value for chunk in column.chunks for value in _values(chunk)]
    try:
        return values if decode is None else [decode(value) for value in values]
    except JsonTextError as error:
        raise JsonTextError(f"column {name!r}: {error}") from None


def _to_ragged(column: pa.ChunkedArray) -> Ragged | None:
    """Convert a column of integer lists without nulls to flat arrays; None for any other column."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type) or column.null_count:
        return None
    array = column.combine_chunks()
    lengths = array.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    values = array.flatten()
    if values.null_count:
        return None
    try:
        return Ragged(values.cast(pa.int32()).to_numpy(zero_copy_only=False), lengths_to_offsets(lengths))
    except pa.ArrowInvalid:
        return None  # ids beyond int32 stay Python lists, which a later step rejects


def _values(array: pa.Array) -> list[Any]:
    """Convert an array as `to_pylist` does, but without the null fields of structs, and with maps as objects.

    Arrow adds to every struct of a column the fields of all others, with null values. A chat template would render
    them.
    """
    kind = array.type
    if isinstance(kind, pa.ExtensionType):  # a class of a package such as `datasets`, which may not be imported
        return _values(array.storage)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_primitive(kind):
        return list(array.to_pylist())
    if pa.types.is_struct(kind) and kind.num_fields == len({field.name for field in kind}) > 0:
        return _struct_values(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _list_values(array)
    return [without_null_fields(value) for value in array.to_pylist()]


def _struct_values(array: pa.StructArray) -> list[Any]:
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


def _list_values(array: pa.ListArray) -> list[Any]:
    items = _values(array.flatten())
    lists: list[Any] = []
    start = 0
    for length in array.value_lengths().to_pylist():
        lists.append(None if length is None else items[start : start + length])
        start += length or 0
    return lists
