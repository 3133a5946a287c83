"""Read and check list columns of token ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.core.rows import Ragged, lengths_to_offsets
from sftkit.errors import DataError
from sftkit.storage.paths import AnyPath


def read_token_lists(path: AnyPath, table: pa.Table, name: str, first: int) -> Ragged:
    """Read a list column of any integer type as int32.

    Args:
        path: the file, for error messages.
        table: some rows of it.
        name: the column.
        first: number of the table's first row in the file, counted from 1.

    Raises:
        DataError: the column holds something other than lists of whole numbers.
    """
    column = table.column(name)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)):  # fmt: skip
        raise DataError(f"{path}: column {name} must hold lists of token ids, not {column.type}")
    if column.null_count:
        row = int(np.asarray(column.is_null()).argmax())
        raise DataError(f"{path}:{first + row}: {name} is null")
    lengths = np.asarray(pc.list_value_length(column), dtype=np.int64)
    values = pc.list_flatten(column)
    if values.null_count:
        raise DataError(f"{path}: {name} holds a null where a token id should be")
    try:
        flat = np.asarray(pc.cast(values, pa.int32()))
    except pa.ArrowException:
        raise DataError(f"{path}: column {name} must hold lists of token ids, not {column.type}") from None
    return Ragged(flat, lengths_to_offsets(lengths))


def check_ids(path: AnyPath, column: Ragged, first: int, vocabulary_size: int, *, ignored: int | None) -> None:
    """Check that every id is below the size of the model's vocabulary and not negative, or equal to `ignored`.

    Raises:
        DataError: naming the row of an id that is not.
    """
    values = column.values
    if not len(values) or (values.min() >= 0 and values.max() < vocabulary_size):
        return
    invalid = (values < 0) | (values >= vocabulary_size)
    if ignored is not None:
        invalid &= values != ignored
    if invalid.any():
        position = int(invalid.argmax())
        row = int(np.searchsorted(column.offsets, position, side="right")) - 1
        raise DataError(
            f"{path}:{first + row}: token id {values[position]} is not one of the model's"
            f" {vocabulary_size}; the shards were made with another tokenizer; make them again with the tokenizer of"
            " this model"
        )
