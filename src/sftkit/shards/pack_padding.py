"""Padding at the end of packs, as tables of shards hold it: added before they are written, removed when they are read.

A padded pack ends with a sequence of pad tokens whose labels are -100, so a trainer that knows nothing of padding takes
it for a sequence that nothing is learned from. The column `padding` says how many tokens it has, 0 for none. Lists
with an entry for each sequence (`source`, retained columns) have a null for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.core.rows import (
    IGNORE_INDEX,
    INPUT_IDS,
    LABELS,
    LOSS_MASKS,
    PADDING,
    SEQ_LENGTHS,
    Mask,
    Offsets,
    lengths_to_offsets,
)
from sftkit.core.token_kinds import TOKEN_KINDS, TokenKind
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import DataError
from sftkit.shards.arrow_arrays import number_array
from sftkit.storage.paths import AnyPath

_FILL = {LABELS: IGNORE_INDEX, TOKEN_KINDS: int(TokenKind.UNTRAINED), LOSS_WEIGHTS: 0}
"""What columns with an entry for each token hold for padding, besides `input_ids`."""

_OF_TOKENS = (INPUT_IDS, *_FILL, *LOSS_MASKS)
"""Columns with an entry for each token that packs may have when they are read."""


@dataclass(frozen=True)
class PackPadding:
    """How packs are padded."""

    multiple: int
    """Tokens; the length of every pack is a multiple of it."""
    token: int
    """The id of the padding."""

    def tokens(self, sizes: Offsets) -> Offsets:
        """The padding of packs of these lengths, in tokens, shape (packs,).

        Example:
            >>> PackPadding(8, token=0).tokens(np.array([7, 8, 9])).tolist()
            [1, 0, 7]
        """
        return -sizes % self.multiple


def add_padding(table: pa.Table, padding: PackPadding) -> pa.Table:
    """Pad packs, and add the column `padding` after `seq_lengths`.

    Example:
        >>> packs = pa.table({"input_ids": [[5, 6, 7]], "labels": [[-100, 6, 7]], "seq_lengths": [[3]]})
        >>> add_padding(packs, PackPadding(4, token=0)).to_pylist()
        [{'input_ids': [5, 6, 7, 0], 'labels': [-100, 6, 7, -100], 'seq_lengths': [3, 1], 'padding': 1}]
    """
    added = padding.tokens(_lengths(table.column(INPUT_IDS)))
    has_padding = (added > 0).astype(np.int64)
    fill = {INPUT_IDS: padding.token, **_FILL}
    columns: dict[str, pa.Array] = {}
    for name in table.column_names:
        column = table.column(name)
        if name in fill:
            columns[name] = _extended(column, added, fill[name])
        elif name == SEQ_LENGTHS:
            columns[name] = _extended(column, has_padding, added[added > 0])
            columns[PADDING] = number_array(added.astype(np.int32))
        else:
            columns[name] = _extended(column, has_padding, None)
    return pa.table(columns).replace_schema_metadata(table.schema.metadata)


def remove_padding(table: pa.Table, path: AnyPath) -> pa.Table:
    """Return packs without their padding and without the column `padding`; other tables as they are.

    Args:
        table: rows of a shard, with `padding` and `seq_lengths` if it has them.
        path: the shard, for messages.

    Raises:
        DataError: `padding` is not the last of `seq_lengths`.

    Example:
        >>> packs = pa.table({"input_ids": [[5, 6, 0]], "seq_lengths": [[2, 1]], "padding": [1]})
        >>> remove_padding(packs, "train.parquet").to_pylist()
        [{'input_ids': [5, 6], 'seq_lengths': [2]}]
    """
    if not {PADDING, SEQ_LENGTHS} <= set(table.column_names):
        return table
    removed = _checked_padding(table, path)
    table = table.drop_columns([PADDING])
    if not removed.any():
        return table
    has_padding = (removed > 0).astype(np.int64)
    columns = {
        field.name: _shortened(table.column(field.name), removed if _is_of_tokens(field) else has_padding)
        for field in table.schema
    }
    return pa.table(columns).replace_schema_metadata(table.schema.metadata)


def _is_of_tokens(field: pa.Field) -> bool:
    """Return whether a column has numbers for tokens; a retained one of the same name has lists for sequences."""
    return field.name in _OF_TOKENS and not pa.types.is_nested(field.type.value_type)


def _checked_padding(table: pa.Table, path: AnyPath) -> Offsets:
    """The tokens of padding of each row, shape (rows,)."""
    lengths = _lengths(table.column(SEQ_LENGTHS))
    values = np.asarray(pc.list_flatten(table.column(SEQ_LENGTHS)))
    ends = lengths_to_offsets(lengths)[1:]
    last = np.where(lengths > 0, np.append(values, 0)[np.maximum(ends - 1, 0)], 0)
    padding = np.asarray(pc.fill_null(pc.cast(table.column(PADDING), pa.int64(), safe=False), 0))
    wrong = (padding != 0) & (padding != last)
    if wrong.any():
        raise DataError(
            f"{path}: {PADDING} of a row is {padding[wrong][0]} and the last of its {SEQ_LENGTHS} {last[wrong][0]}; "
            "they must be equal, or padding 0"
        )
    return padding


def _extended(column: pa.ChunkedArray, added: Offsets, fill: Any) -> pa.Array:
    """Add values to the end of each list: `fill` (one, or one for each), or null for None."""
    lengths = _lengths(column)
    values = column.combine_chunks().flatten()
    offsets = lengths_to_offsets(lengths + added)
    is_new = _tail(offsets, added)
    if fill is None:
        places = np.zeros(len(is_new), np.int64)
        places[~is_new] = np.arange(len(values))
        return _list(offsets, values.take(pa.array(places, mask=is_new)))
    extended: npt.NDArray[Any] = np.empty(len(is_new), values.type.to_pandas_dtype())
    extended[~is_new] = np.asarray(values)
    extended[is_new] = fill
    return _list(offsets, number_array(extended))


def _shortened(column: pa.ChunkedArray, removed: Offsets) -> pa.Array:
    """Remove values from the end of each list."""
    lengths = _lengths(column)
    kept = pa.array(~_tail(lengths_to_offsets(lengths), removed))
    return _list(lengths_to_offsets(lengths - removed), column.combine_chunks().flatten().filter(kept))


def _tail(offsets: Offsets, counts: Offsets) -> Mask:
    """Which values are among the last `counts` of their list, shape (values,)."""
    position = np.arange(offsets[-1])
    tail: Mask = position >= np.repeat(offsets[1:] - counts, np.diff(offsets))
    return tail


def _lengths(column: pa.ChunkedArray) -> Offsets:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0), np.int64)


def _list(offsets: Offsets, values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(number_array(offsets.astype(np.int32)), values)
