"""How the rows of shards were packed, as their manifest tells it, and how to name what is in a pack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.audit.checks.packs import PackBoundaries, Packing, pack_boundaries
from sftkit.core.error_text import first_line
from sftkit.core.rows import (
    IGNORE_INDEX,
    INPUT_IDS,
    LABELS,
    SEQ_LENGTHS,
    Ids,
    Mask,
    Offsets,
    Ragged,
    lengths_to_offsets,
)
from sftkit.errors import SourceError
from sftkit.ordering.packing import keeps_rows_whole
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import open_parquet
from sftkit.storage.paths import AnyPath

TEXT = "text"
_MASKS = ("completion_mask", "assistant_masks")  # TRL's: 1 where there is a loss, in every mask that is there


@dataclass(frozen=True)
class ColumnLayout:
    """The columns of one Parquet file that are read.

    tokens: whether it has `input_ids`; otherwise `text` names its text column. supervision: the columns that say which
    tokens carry a loss, in full `labels`, or masks of 0 and 1; () when there are none.
    """

    path: AnyPath
    names: tuple[str, ...]
    tokens: bool
    supervision: tuple[str, ...]
    packed: bool
    text: str | None

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        if not self.tokens:
            return [self.text] if self.text is not None else []
        return [INPUT_IDS, *self.supervision, *([SEQ_LENGTHS] if self.packed else [])]


@dataclass(frozen=True)
class TokenColumns:
    """Rows of tokens side by side.

    ids: the rows. labels: int32, shape (tokens,), -100 where there is no loss; None where the loss comes from masks
    or nothing tells. trained: bool, shape (tokens,), or None when nothing tells. misfit: bool, shape (rows,): a
    column differs from `input_ids` in length; what it lacks carries no loss. seq_lengths: tokens of the sequences that
    share each row, for packs.
    """

    ids: Ragged
    labels: Ids | None
    trained: Mask | None
    misfit: Mask
    seq_lengths: Ragged | None

    @property
    def wrong(self) -> Mask:
        """Tokens that carry a loss towards another id than their own, bool, shape (tokens,)."""
        if self.labels is None or self.trained is None:
            return np.zeros(len(self.ids.values), np.bool_)
        different: Mask = self.labels != self.ids.values
        return np.logical_and(different, self.trained, out=different)

    def packs(self, packing: Packing) -> PackBoundaries | None:
        """The sequences that share the rows, None where rows are not packed."""
        return pack_boundaries(self.ids, self.seq_lengths, packing) if self.seq_lengths is not None else None


def read_layout(path: AnyPath, text_fields: Sequence[str]) -> ColumnLayout:
    """Find the columns of a Parquet file; `text_fields` are names that a text column may have, the likeliest first.

    Raises:
        SourceError: it cannot be read, or has neither `input_ids` nor a text column.
    """
    with open_parquet(path) as file:
        schema: pa.Schema = file.schema_arrow
    names = tuple(schema.names)
    if INPUT_IDS in names:
        masks = tuple(name for name in _MASKS if name in names)
        supervision = (LABELS,) if LABELS in names else masks
        return ColumnLayout(path, names, True, supervision, SEQ_LENGTHS in names, None)
    text = next((name for name in text_fields if name in names and _is_text(schema.field(name).type)), None)
    if text is None:
        there = ", ".join(names) or "none"
        or_text = f" and no text column {' or '.join(map(repr, text_fields))} (name another with dataset_text_field)"
        raise SourceError(f"{path}: has no column 'input_ids'{or_text if text_fields else ''}; columns there: {there}")
    return ColumnLayout(path, names, False, (), False, text)


def iter_row_groups(layout: ColumnLayout, first: int = 0) -> Iterator[pa.Table]:
    """The row groups of a file from number `first` on, with the layout's columns only, one in memory at a time.

    Raises:
        SourceError: the file cannot be read.
    """
    with open_parquet(layout.path) as file:
        for group in range(first, file.num_row_groups):
            try:
                table = file.read_row_group(group, columns=layout.columns, use_threads=False)
            except (OSError, pa.ArrowException) as error:
                reason = first_line(error)
                raise SourceError(f"{layout.path}: row group {group} cannot be read: {reason}") from None
            yield table


def token_columns(table: pa.Table, layout: ColumnLayout) -> TokenColumns:
    """The token columns of some rows as flat arrays.

    Raises:
        SourceError: a column does not hold lists of whole numbers.
    """
    ids = _ragged(table.column(INPUT_IDS), INPUT_IDS, layout.path)
    columns = [_ragged(table.column(name), name, layout.path) for name in layout.supervision]
    misfit = np.zeros(len(ids), np.bool_)
    for column in columns:
        misfit |= column.lengths != ids.lengths
    labels, trained = None, None
    if layout.supervision == (LABELS,):
        labels = _aligned(columns[0], ids, IGNORE_INDEX)
        trained = labels != IGNORE_INDEX
    elif columns:
        trained = np.logical_and.reduce([_aligned(column, ids, 0) != 0 for column in columns])
    packs = _ragged(table.column(SEQ_LENGTHS), SEQ_LENGTHS, layout.path) if layout.packed else None
    return TokenColumns(ids, labels, trained, misfit, packs)


def row_lengths(table: pa.Table, layout: ColumnLayout) -> Offsets:
    """Tokens of each row, shape (rows,); `SourceError` as `token_columns`."""
    return _ragged(table.column(INPUT_IDS), INPUT_IDS, layout.path).lengths


def text_lengths(table: pa.Table, layout: ColumnLayout) -> Offsets:
    """Characters of each row of the text column, shape (rows,); a null has none."""
    lengths = pc.fill_null(pc.utf8_length(_plain_text(table, layout)), 0)
    return np.asarray(lengths.to_numpy(), np.int64)


def text_values(table: pa.Table, layout: ColumnLayout) -> list[str]:
    """The text column of some rows; a null is an empty text."""
    return [text or "" for text in _plain_text(table, layout).to_pylist()]


def _plain_text(table: pa.Table, layout: ColumnLayout) -> pa.ChunkedArray:
    return table.column(layout.text).cast(pa.large_string())


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _ragged(column: pa.ChunkedArray, name: str, path: AnyPath) -> Ragged:
    """A column of lists, of any list and whole-number type, as a `Ragged`; a null row is empty."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_integer(kind.value_type) or pa.types.is_boolean(kind.value_type)):
        raise SourceError(f"{path}: column {name!r} must hold lists of whole numbers, not {kind}")
    lengths = [np.asarray(pc.fill_null(pc.list_value_length(chunk), 0)) for chunk in column.chunks]
    values = [_values(chunk, name, path) for chunk in column.chunks]
    if len(values) == 1:
        return Ragged(values[0], lengths_to_offsets(lengths[0].astype(np.int64)))
    empty = np.zeros(0, np.int32)
    joined = np.concatenate([empty, *lengths]).astype(np.int64)
    return Ragged(np.concatenate([empty, *values]), lengths_to_offsets(joined))


def _values(chunk: pa.Array, name: str, path: AnyPath) -> Ids:
    values = chunk.flatten()  # leaves out what null rows may hide
    if values.type != pa.int32():
        try:
            values = values.cast(pa.int32())
        except pa.ArrowInvalid as error:
            reason = first_line(error)
            raise SourceError(f"{path}: column {name!r} holds numbers that no token has: {reason}") from None
    if values.null_count:
        values = pc.fill_null(values, IGNORE_INDEX if name == LABELS else 0)
    flat: Ids = values.to_numpy()
    return flat


def _aligned(column: Ragged, ids: Ragged, missing: int) -> Ids:
    """The values of a column at the positions of `ids`, shape (tokens,); `missing` where a row of it is too short."""
    if np.array_equal(column.offsets, ids.offsets):
        return column.values
    kept = np.minimum(column.lengths, ids.lengths)
    lengths = ids.lengths
    position = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], lengths)
    values = np.full(len(ids.values), missing, np.int32)
    values[position < np.repeat(kept, lengths)] = column.truncate(kept).values
    return values


def split_packing(manifest: Manifest | None, split: str) -> Packing:
    """How a split was packed; nothing is known of shards without a manifest."""
    if manifest is None or split not in manifest.splits:
        return Packing()
    return Packing(manifest.splits[split].pack_length, not keeps_rows_whole(manifest.config.get("packing")))


def row_reference(shard: str, row: int, sequence: int | None = None) -> str:
    """`shard:row`, the row counted from 0 within the file; in a pack with the sequence, which pages count from 1."""
    return f"{shard}:{row}" if sequence is None else f"{shard}:{row} (sequence {sequence + 1})"
