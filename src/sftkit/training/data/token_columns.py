"""List columns of Parquet -> flat int32 arrays, checked; what is wrong is named as `path:row`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.core.rows import Ragged, lengths_to_offsets
from sftkit.errors import DataError
from sftkit.storage.paths import AnyPath


def read_token_lists(path: AnyPath, table: pa.Table, name: str, first: int) -> Ragged:
    """A list column of any integer type as flat int32; `first` is the number of the table's first row in its file.

    Raises:
        DataError: it holds something else than lists of whole numbers.
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
    """See to it that every id is one of the model's, or the one that is ignored.

    Raises:
        DataError: an id is not; its row is named.
    """
    values = column.values
    if not len(values) or (values.min() >= 0 and values.max() < vocabulary_size):
        return
    bad = (values < 0) | (values >= vocabulary_size)
    if ignored is not None:
        bad &= values != ignored
    if bad.any():
        position = int(bad.argmax())
        row = int(np.searchsorted(column.offsets, position, side="right")) - 1
        raise DataError(
            f"{path}:{first + row}: token id {values[position]} is not one of the model's"
            f" {vocabulary_size}; the shards were made with another tokenizer"
        )
