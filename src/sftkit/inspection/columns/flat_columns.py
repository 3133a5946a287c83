"""Converts Arrow columns of lists to flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.core.error_text import first_line
from sftkit.core.rows import ATTENTION_MASK, IGNORE_INDEX, LABELS, Ragged, lengths_to_offsets
from sftkit.errors import SourceError
from sftkit.shards.arrow_arrays import list_array
from sftkit.storage.paths import AnyPath


def holds_integers(kind: pa.DataType) -> bool:
    """Return whether a type is that of lists of integers or booleans."""
    return _is_list(kind) and bool(pa.types.is_integer(kind.value_type) or pa.types.is_boolean(kind.value_type))


def holds_floats(kind: pa.DataType) -> bool:
    """Return whether a type is that of lists of floating point numbers."""
    return _is_list(kind) and bool(pa.types.is_floating(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def flatten(column: pa.ChunkedArray, name: str, path: AnyPath) -> Ragged:
    """Convert a column of any list and integer type; null rows become empty.

    Raises:
        SourceError: it does not hold lists of integers, or they do not fit int32.
    """
    if not holds_integers(column.type):
        raise SourceError(f"{path}: column {name!r} must hold lists of integers, not {column.type}")
    return flatten_as(column, name, path, pa.int32())


def flatten_as(column: pa.ChunkedArray, name: str, path: AnyPath, kind: pa.DataType) -> Ragged:
    """Convert a column of any list type to values of a type; null rows become empty. Raises as `flat_numbers`."""
    lengths = [np.asarray(pc.fill_null(pc.list_value_length(chunk), 0)) for chunk in column.chunks]
    values = [flat_numbers(chunk.flatten(), name, path, kind) for chunk in column.chunks]  # skips what null rows hide
    if len(values) == 1:
        return Ragged(values[0], lengths_to_offsets(lengths[0].astype(np.int64)))
    empty = np.zeros(0, kind.to_pandas_dtype())
    joined = np.concatenate([np.zeros(0, np.int64), *lengths]).astype(np.int64)
    return Ragged(np.concatenate([empty, *values]), lengths_to_offsets(joined))


def flat_numbers(values: pa.Array, name: str, path: AnyPath, kind: pa.DataType | None = None) -> npt.NDArray[Any]:
    """Convert numbers to an array of a type, int32 by default; null is 0, or -100 in `labels`.

    Raises:
        SourceError: they do not fit the type.
    """
    kind = kind or pa.int32()
    if values.type != kind:
        try:
            values = values.cast(kind)
        except pa.ArrowInvalid as error:
            reason = first_line(error)
            raise SourceError(f"{path}: column {name!r} holds numbers that cannot be token ids: {reason}") from None
    if values.null_count:
        values = pc.fill_null(values, IGNORE_INDEX if name == LABELS else 0)
    flat: npt.NDArray[Any] = values.to_numpy()
    return flat


def remove_masked(table: pa.Table, path: AnyPath) -> pa.Table:
    """Return packs without the tokens whose `attention_mask` is 0, and without that column.

    Columns whose rows are not as long as those of the mask stay as they are.

    Raises:
        SourceError: a column does not hold lists of numbers.

    Example:
        >>> columns = {"input_ids": [[5, 6, 0]], "loss_weights": [[1.0, 0.5, 0.0]], "attention_mask": [[1, 2, 0]]}
        >>> packs = pa.table(columns)
        >>> remove_masked(packs, "train.parquet").to_pylist()
        [{'input_ids': [5, 6], 'loss_weights': [1.0, 0.5]}]
    """
    mask = flatten(table.column(ATTENTION_MASK), ATTENTION_MASK, path)
    table = table.drop_columns([ATTENTION_MASK])
    kept = mask.values != 0
    if kept.all():
        return table
    for index, name in enumerate(table.column_names):
        column = table.column(name)
        is_float = holds_floats(column.type)
        values = flatten_as(column, name, path, pa.float32()) if is_float else flatten(column, name, path)
        if np.array_equal(values.offsets, mask.offsets):
            table = table.set_column(index, name, list_array(values.select(kept)))
    return table


def align(column: Ragged, ids: Ragged, missing: int) -> npt.NDArray[Any]:
    """Return a column at the positions of `ids`, shape (tokens,); `missing` where its row is too short."""
    if np.array_equal(column.offsets, ids.offsets):
        return column.values
    kept = np.minimum(column.lengths, ids.lengths)
    lengths = ids.lengths
    position = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], lengths)
    values = np.full(len(ids.values), missing, column.values.dtype)
    values[position < np.repeat(kept, lengths)] = column.truncate(kept).values
    return values
