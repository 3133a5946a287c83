"""Reads the tokens, labels and texts of Parquet files, whichever tool wrote them.

Any list of integers is accepted for `input_ids`. What carries a loss comes from `labels` (-100 where there is none), or
else from TRL's `completion_mask` and `assistant_masks` (1 where there is one; with both, where both are 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.audit.checks.packs import PackBoundaries, Packing, pack_boundaries
from sftkit.core.error_text import first_line
from sftkit.core.rows import (
    IGNORE_INDEX,
    INPUT_IDS,
    LABELS,
    LOSS_MASKS,
    PADDING,
    SEQ_LENGTHS,
    SOURCE,
    Ids,
    Mask,
    Offsets,
    Ragged,
    Weights,
    lengths_to_offsets,
)
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import SourceError
from sftkit.ordering.packing import cuts_inside_packs, keeps_rows_whole
from sftkit.shards.manifest import Manifest
from sftkit.shards.pack_padding import remove_padding
from sftkit.shards.reading import open_parquet
from sftkit.storage.paths import AnyPath

TEXT = "text"


@dataclass(frozen=True)
class ColumnLayout:
    """Which columns of a Parquet file are read."""

    path: AnyPath
    names: tuple[str, ...]
    """All columns of the file."""
    tokens: bool
    """Whether it has `input_ids`."""
    supervision: tuple[str, ...]
    """The columns that say which tokens carry a loss: `labels`, or masks of 0 and 1; () when there are none."""
    packed: bool
    """Whether rows are packs, which have `seq_lengths`."""
    text: str | None
    """The text column, for files without `input_ids`."""
    kinds: bool = False
    """Whether it has the column `token_kinds`."""
    weights: bool = False
    """Whether it has the column `loss_weights`."""
    sources: bool = False
    """Whether it has the column `source`, with a number for each sequence."""
    padded: bool = False
    """Whether it has the column `padding`, for packs."""

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        if not self.tokens:
            return [self.text] if self.text is not None else []
        others = (
            *((SEQ_LENGTHS, self.packed), (TOKEN_KINDS, self.kinds)),
            *((LOSS_WEIGHTS, self.weights), (SOURCE, self.sources), (PADDING, self.padded)),
        )
        return [INPUT_IDS, *self.supervision, *(name for name, is_there in others if is_there)]


@dataclass(frozen=True)
class TokenColumns:
    """The tokens of some rows."""

    ids: Ragged
    labels: Ids | None
    """int32, shape (tokens,), -100 where there is no loss; None when there is no `labels` column."""
    trained: Mask | None
    """Which tokens carry a loss, bool, shape (tokens,); None when there are neither labels nor masks."""
    length_mismatch: Mask
    """Rows in which a column differs from `input_ids` in length, bool, shape (rows,); missing values carry no loss."""
    seq_lengths: Ragged | None
    """Tokens of the sequences in each pack; None where rows are not packed."""
    kinds: Ids | None = None
    """The kind of each token (`TokenKind`), int32, shape (tokens,); None when there is no column `token_kinds`."""

    weights: Weights | None = None
    """The loss weight of each token, float32, shape (tokens,); None when there is no column `loss_weights`."""
    sources: Ragged | None = None
    """The number of the data set of each row, or of each sequence of a pack; None when there is no column `source`."""

    @property
    def wrong_labels(self) -> Mask:
        """Trained tokens whose label differs from their id, bool, shape (tokens,)."""
        if self.labels is None or self.trained is None:
            return np.zeros(len(self.ids.values), np.bool_)
        different: Mask = self.labels != self.ids.values
        return np.logical_and(different, self.trained, out=different)

    def packs(self, packing: Packing) -> PackBoundaries | None:
        """Return the sequences in the rows, None where rows are not packed."""
        return pack_boundaries(self.ids, self.seq_lengths, packing) if self.seq_lengths is not None else None


def read_layout(path: AnyPath, text_fields: Sequence[str]) -> ColumnLayout:
    """Find the columns of a Parquet file.

    Args:
        path: the file.
        text_fields: names that a text column may have, the most likely first.

    Raises:
        SourceError: it cannot be read, or has neither `input_ids` nor a text column.
    """
    with open_parquet(path) as file:
        schema: pa.Schema = file.schema_arrow
    names = tuple(schema.names)
    if INPUT_IDS in names:
        masks = tuple(name for name in LOSS_MASKS if name in names)
        supervision = (LABELS,) if LABELS in names else masks
        packed = SEQ_LENGTHS in names
        return ColumnLayout(
            path,
            names,
            True,
            supervision,
            packed,
            None,
            kinds=TOKEN_KINDS in names and _holds_integers(schema.field(TOKEN_KINDS).type),
            weights=LOSS_WEIGHTS in names and _holds_floats(schema.field(LOSS_WEIGHTS).type),
            sources=SOURCE in names and _is_source(schema.field(SOURCE).type, packed=packed),
            padded=packed and PADDING in names and bool(pa.types.is_integer(schema.field(PADDING).type)),
        )
    text = next((name for name in text_fields if name in names and _is_text(schema.field(name).type)), None)
    if text is None:
        or_text = f" and no text column {' or '.join(map(repr, text_fields))} (set dataset_text_field to use another)"
        raise SourceError(
            f"{path}: has no column 'input_ids'{or_text if text_fields else ''}; "
            f"columns there: {', '.join(names) or 'none'}"
        )
    return ColumnLayout(path, names, False, (), False, text)


def iter_row_groups(layout: ColumnLayout, first: int = 0) -> Iterator[pa.Table]:
    """Yield the row groups of a file from index `first` on, with the layout's columns, one in memory at a time.

    Packs come without their padding.

    Raises:
        SourceError: the file cannot be read.
        DataError: the padding of a pack is not its last sequence.
    """
    with open_parquet(layout.path) as file:
        for group in range(first, file.num_row_groups):
            try:
                table = file.read_row_group(group, columns=layout.columns, use_threads=False)
            except (OSError, pa.ArrowException) as error:
                raise SourceError(f"{layout.path}: row group {group} cannot be read: {first_line(error)}") from None
            yield remove_padding(table, layout.path)


def token_columns(table: pa.Table, layout: ColumnLayout) -> TokenColumns:
    """Convert the token columns of some rows to flat arrays.

    Raises:
        SourceError: a column does not hold lists of integers.
    """
    ids = _ragged(table.column(INPUT_IDS), INPUT_IDS, layout.path)
    columns = [_ragged(table.column(name), name, layout.path) for name in layout.supervision]
    length_mismatch = np.zeros(len(ids), np.bool_)
    for column in columns:
        length_mismatch |= column.lengths != ids.lengths
    labels, trained = None, None
    if layout.supervision == (LABELS,):
        labels = _aligned(columns[0], ids, IGNORE_INDEX)
        trained = labels != IGNORE_INDEX
    elif columns:
        trained = np.logical_and.reduce([_aligned(column, ids, 0) != 0 for column in columns])
    seq_lengths = _ragged(table.column(SEQ_LENGTHS), SEQ_LENGTHS, layout.path) if layout.packed else None
    kinds = _aligned(_ragged(table.column(TOKEN_KINDS), TOKEN_KINDS, layout.path), ids, 0) if layout.kinds else None
    weights: Weights | None = None
    if layout.weights:
        column = _ragged_of(table.column(LOSS_WEIGHTS), LOSS_WEIGHTS, layout.path, pa.float32())
        length_mismatch |= column.lengths != ids.lengths
        weights = _aligned(column, ids, 0)
    sources = _sources(table.column(SOURCE), layout) if layout.sources else None
    return TokenColumns(ids, labels, trained, length_mismatch, seq_lengths, kinds, weights, sources)


def row_lengths(table: pa.Table, layout: ColumnLayout) -> Offsets:
    """Return the tokens of each row, shape (rows,). Raises `SourceError` as `token_columns`."""
    return _ragged(table.column(INPUT_IDS), INPUT_IDS, layout.path).lengths


def text_lengths(table: pa.Table, layout: ColumnLayout) -> Offsets:
    """Return the characters of each row of the text column, shape (rows,); 0 for null."""
    lengths = pc.fill_null(pc.utf8_length(_plain_text(table, layout)), 0)
    return np.asarray(lengths.to_numpy(), np.int64)


def text_values(table: pa.Table, layout: ColumnLayout) -> list[str]:
    """Return the text column of some rows; "" for null."""
    return [text or "" for text in _plain_text(table, layout).to_pylist()]


def _plain_text(table: pa.Table, layout: ColumnLayout) -> pa.ChunkedArray:
    return table.column(layout.text).cast(pa.large_string())


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _holds_integers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and bool(pa.types.is_integer(kind.value_type) or pa.types.is_boolean(kind.value_type))


def _holds_floats(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and bool(pa.types.is_floating(kind.value_type))


def _is_source(kind: pa.DataType, *, packed: bool) -> bool:
    return _holds_integers(kind) if packed else bool(pa.types.is_integer(kind))


def _sources(column: pa.ChunkedArray, layout: ColumnLayout) -> Ragged:
    """Read the column `source`; -1 for null."""
    if layout.packed:
        return _ragged(column, SOURCE, layout.path)
    numbers = _values(pc.fill_null(column, -1).combine_chunks(), SOURCE, layout.path)
    return Ragged.from_lengths(numbers, np.ones(len(numbers), np.int64))


def _ragged(column: pa.ChunkedArray, name: str, path: AnyPath) -> Ragged:
    """Convert a column of any list and integer type; null rows become empty."""
    if not _holds_integers(column.type):
        raise SourceError(f"{path}: column {name!r} must hold lists of integers, not {column.type}")
    return _ragged_of(column, name, path, pa.int32())


def _ragged_of(column: pa.ChunkedArray, name: str, path: AnyPath, kind: pa.DataType) -> Ragged:
    """Convert a column of any list type to values of a type; null rows become empty."""
    lengths = [np.asarray(pc.fill_null(pc.list_value_length(chunk), 0)) for chunk in column.chunks]
    values = [_values(chunk.flatten(), name, path, kind) for chunk in column.chunks]  # skips what null rows may hide
    if len(values) == 1:
        return Ragged(values[0], lengths_to_offsets(lengths[0].astype(np.int64)))
    empty = np.zeros(0, kind.to_pandas_dtype())
    joined = np.concatenate([np.zeros(0, np.int64), *lengths]).astype(np.int64)
    return Ragged(np.concatenate([empty, *values]), lengths_to_offsets(joined))


def _values(values: pa.Array, name: str, path: AnyPath, kind: pa.DataType | None = None) -> npt.NDArray[Any]:
    """Convert numbers to an array of a type, int32 by default."""
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


def _aligned(column: Ragged, ids: Ragged, missing: int) -> npt.NDArray[Any]:
    """Return a column at the positions of `ids`, shape (tokens,); `missing` where its row is too short."""
    if np.array_equal(column.offsets, ids.offsets):
        return column.values
    kept = np.minimum(column.lengths, ids.lengths)
    lengths = ids.lengths
    position = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], lengths)
    values = np.full(len(ids.values), missing, column.values.dtype)
    values[position < np.repeat(kept, lengths)] = column.truncate(kept).values
    return values


def split_packing(manifest: Manifest | None, split: str) -> Packing:
    """Return how a split was packed; for shards without a manifest this is unknown."""
    if manifest is None or split not in manifest.splits:
        return Packing()
    packing = manifest.config.get("packing")
    return Packing(manifest.splits[split].pack_length, not keeps_rows_whole(packing), cuts_inside_packs(packing))


def row_reference(shard: str, row: int, sequence: int | None = None) -> str:
    """Format the position of a row, or of a sequence in a pack. Arguments count from 0, the printed sequence from 1.

    Example:
        >>> row_reference("a.parquet", 7), row_reference("a.parquet", 7, 0)
        ('a.parquet:7', 'a.parquet:7 (sequence 1)')
    """
    return f"{shard}:{row}" if sequence is None else f"{shard}:{row} (sequence {sequence + 1})"
