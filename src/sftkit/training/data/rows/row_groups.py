"""Locate and decode Parquet row groups of token sequences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sftkit.core.rows import (
    ATTENTION_MASK,
    IGNORE_INDEX,
    INPUT_IDS,
    LABELS,
    SEQ_LENGTHS,
    SHIFTED_LABELS,
    Mask,
    Offsets,
    Ragged,
    has_shifted_labels,
    lengths_to_offsets,
)
from sftkit.errors import DataError
from sftkit.shards.readers.parquet_file import open_parquet
from sftkit.storage.paths import AnyPath
from sftkit.training.data.rows.token_columns import check_ids, read_token_lists
from sftkit.training.data.rows.token_details import NO_DETAILS, DetailReader, TokenDetails
from sftkit.training.data.rows.token_layouts import LAYOUT_COLUMNS, LayoutReader


@dataclass(frozen=True)
class RowGroupLocation:
    """Where a row group is, and how much it holds."""

    path: AnyPath

    index: int
    """Index of the row group in its file, from 0."""

    first_row: int
    """Number of its first row in the file, from 1."""

    rows: int

    tokens: int
    """Values of its column `input_ids`, as recorded in the footer."""


@dataclass(frozen=True)
class TokenSequences:
    """Some sequences in order."""

    input_ids: Ragged
    labels: Ragged
    """Not shifted: the label of token i itself, -100 for no loss."""

    details: TokenDetails = NO_DETAILS
    """Of the tokens of all sequences."""

    def copy(self) -> TokenSequences:
        """A copy that does not keep the row group in memory that the sequences are a view of."""
        ids, labels = (Ragged(column.values.copy(), column.offsets) for column in (self.input_ids, self.labels))
        return TokenSequences(ids, labels, self.details.copy())


@dataclass(frozen=True)
class RowGroup:
    """The decoded rows of one Parquet row group; a row is one sequence, or a pack of several.

    A row that is left out of training stays as a row without sequences, so that rows keep their numbers.
    """

    input_ids: Ragged
    """Ids of every sequence of every row."""

    labels: Ragged
    """Labels of every sequence of every row."""

    row_offsets: Offsets
    """Row i has the sequences `row_offsets[i]` to `row_offsets[i + 1]`; int64, shape (rows + 1,)."""

    details: TokenDetails = NO_DETAILS
    """Of the tokens of all sequences."""

    @property
    def sizes(self) -> Offsets:
        """Tokens of each row, shape (rows,)."""
        return np.diff(self.input_ids.offsets[self.row_offsets])

    def row(self, number: int) -> TokenSequences:
        """The sequences of one row, as views."""
        first, stop = self.row_offsets[number], self.row_offsets[number + 1]
        tokens = slice(self.input_ids.offsets[first], self.input_ids.offsets[stop])
        ids, labels = (_sequences(column, first, stop) for column in (self.input_ids, self.labels))
        return TokenSequences(ids, labels, self.details.at(tokens))


def locate_row_groups(path: AnyPath) -> list[RowGroupLocation]:
    """The row groups of a file that have rows; only its footer is read.

    Raises:
        SourceError: the file cannot be read, or is not Parquet.
        DataError: it has no column `input_ids`.
    """
    with open_parquet(path) as file:
        footer = file.metadata
        names = [footer.schema.column(index).path.split(".")[0] for index in range(footer.num_columns)]
        if INPUT_IDS not in names:
            raise DataError(f"{path}: no column {INPUT_IDS}")
        column = names.index(INPUT_IDS)
        locations, first = [], 1
        for index in range(footer.num_row_groups):
            group = footer.row_group(index)
            if group.num_rows:
                tokens = group.column(column).num_values
                locations.append(RowGroupLocation(path, index, first, group.num_rows, tokens))
            first += group.num_rows
    return locations


def decode_row_group(location: RowGroupLocation, table: pa.Table, vocabulary_size: int, sources: int = 0) -> RowGroup:
    """Check the rows of a row group and divide them into sequences.

    Args:
        location: of the row group.
        table: its columns `input_ids`, `labels`, for packs `seq_lengths`, those of `LAYOUT_COLUMNS` that it has, and
            those of `DETAIL_COLUMNS` that are used.
        vocabulary_size: every token id is below it.
        sources: every number of a source is below it.

    Raises:
        DataError: a row is invalid; it is named as `path:row`.
    """
    path, first_row = location.path, location.first_row
    for name in (INPUT_IDS, LABELS):
        if name not in table.column_names:
            raise DataError(f"{path}: no column {name}")
    input_ids = read_token_lists(path, table, INPUT_IDS, first_row)
    labels = read_token_lists(path, table, LABELS, first_row)
    mismatch = input_ids.lengths != labels.lengths
    if mismatch.any():
        row = int(mismatch.argmax())
        raise DataError(
            f"{path}:{first_row + row}: {input_ids.lengths[row]} input_ids and {labels.lengths[row]} labels;"
            " there must be as many of each"
        )
    layout = {
        name: read_token_lists(path, table, name, first_row) for name in LAYOUT_COLUMNS if name in table.column_names
    }
    details = DetailReader(path, first_row, table, input_ids)
    input_ids, labels, lengths = LayoutReader(path, first_row, input_ids, labels).read(layout)
    check_ids(path, input_ids, first_row, vocabulary_size, ignored=None)
    check_ids(path, labels, first_row, vocabulary_size, ignored=IGNORE_INDEX)
    shifted = has_shifted_labels(input_ids, labels)
    if shifted.any():
        raise DataError(f"{path}:{first_row + int(shifted.argmax())}: {SHIFTED_LABELS}")
    if SEQ_LENGTHS in table.column_names:
        lengths = _given_lengths(location, table, input_ids)
    sequence_offsets = lengths_to_offsets(lengths.values.astype(np.int64))
    kept = layout[ATTENTION_MASK].values != 0 if ATTENTION_MASK in layout else None
    return RowGroup(
        Ragged(input_ids.values, sequence_offsets),
        Ragged(labels.values, sequence_offsets),
        lengths.offsets,
        details.read(kept, lengths, sources),
    )


def _given_lengths(location: RowGroupLocation, table: pa.Table, input_ids: Ragged) -> Ragged:
    """The lengths of the sequences of each row, from the column `seq_lengths`."""
    path, first_row = location.path, location.first_row
    lengths = read_token_lists(path, table, SEQ_LENGTHS, first_row)
    sequence_offsets = np.concatenate(([0], np.cumsum(lengths.values, dtype=np.int64)))
    all_positive = lengths.count_per_row(lengths.values < 1) == 0
    valid = all_positive & (np.diff(sequence_offsets[lengths.offsets]) == input_ids.lengths)
    if not valid.all():
        row = int(valid.argmin())
        raise DataError(
            f"{path}:{first_row + row}: {SEQ_LENGTHS} must be positive and sum to the tokens of the row;"
            f" they sum to {int(lengths[row].sum())}, the row has {input_ids.lengths[row]} tokens"
        )
    return lengths


def keep_sequences(group: RowGroup, keep: Mask) -> RowGroup:
    """Only the sequences where `keep` (bool, shape (sequences,)) is true; every row stays, even if it has none left."""
    if keep.all():
        return group
    row_offsets = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))[group.row_offsets]
    details = group.details.at(np.repeat(keep, group.input_ids.lengths))
    return RowGroup(group.input_ids.filter(keep), group.labels.filter(keep), row_offsets, details)


def _sequences(column: Ragged, first: int, stop: int) -> Ragged:
    offsets = column.offsets[first : stop + 1]
    return Ragged(column.values[offsets[0] : offsets[-1]], offsets - offsets[0])
