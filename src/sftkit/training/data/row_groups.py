"""One Parquet row group: where it is, and its rows as sequences, checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sftkit.core.rows import IGNORE_INDEX, INPUT_IDS, LABELS, SEQ_LENGTHS, Mask, Offsets, Ragged
from sftkit.errors import DataError
from sftkit.shards.reading import open_parquet
from sftkit.storage.paths import AnyPath
from sftkit.training.data.token_columns import check_ids, read_token_lists


@dataclass(frozen=True)
class RowGroupLocation:
    """Where a row group is: its number in its file, the number of its first row there (the first is 1), what it holds.

    tokens: values in its `input_ids`, as the footer says.
    """

    path: AnyPath
    index: int
    first_row: int
    rows: int
    tokens: int


@dataclass(frozen=True)
class TokenSequences:
    """Some sequences, in order: ids and labels (unshifted, -100 for no loss) of each."""

    input_ids: Ragged
    labels: Ragged

    def copy(self) -> TokenSequences:
        """The same apart from what they were a part of, which need not stay in memory for them."""
        columns = (self.input_ids, self.labels)
        return TokenSequences(*(Ragged(column.values.copy(), column.offsets) for column in columns))


@dataclass(frozen=True)
class RowGroup:
    """The rows of one Parquet row group that can be trained on, as they came or as packs.

    input_ids, labels: of every sequence. firsts: which sequences are of which row: row i has the sequences
    `firsts[i]` to `firsts[i + 1]`, int64, shape (rows + 1,); a row that is left out has none. sizes: tokens of each
    row, int64, shape (rows,).
    """

    input_ids: Ragged
    labels: Ragged
    row_offsets: Offsets

    @property
    def sizes(self) -> Offsets:
        """Tokens of each row, shape (rows,)."""
        ends = self.input_ids.offsets[self.row_offsets]
        return np.diff(ends)

    def row(self, number: int) -> TokenSequences:
        """The sequences of one row."""
        first, last = self.row_offsets[number], self.row_offsets[number + 1]
        return TokenSequences(_part(self.input_ids, first, last), _part(self.labels, first, last))


def locate_row_groups(path: AnyPath) -> list[RowGroupLocation]:
    """The row groups of a file that hold rows; its footer is read, its rows are not.

    Raises:
        SourceError: it cannot be read, or is not Parquet.
        DataError: it has no `input_ids`.
    """
    with open_parquet(path) as file:
        footer = file.metadata
        names = [footer.schema.column(place).path.split(".")[0] for place in range(footer.num_columns)]
        if INPUT_IDS not in names:
            raise DataError(f"{path}: no column {INPUT_IDS}")
        column = names.index(INPUT_IDS)
        places, first = [], 1
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            if group.num_rows:
                places.append(RowGroupLocation(path, number, first, group.num_rows, group.column(column).num_values))
            first += group.num_rows
    return places


def decode_row_group(place: RowGroupLocation, table: pa.Table, vocabulary_size: int) -> RowGroup:
    """A row group as it is in its file, checked, with its rows cut into sequences.

    Raises:
        DataError: a row cannot be used; it is named as `path:row`.
    """
    for name in (INPUT_IDS, LABELS):
        if name not in table.column_names:
            raise DataError(f"{place.path}: no column {name}")
    input_ids = read_token_lists(place.path, table, INPUT_IDS, place.first_row)
    labels = read_token_lists(place.path, table, LABELS, place.first_row)
    misfit = input_ids.lengths != labels.lengths
    if misfit.any():
        row = int(misfit.argmax())
        counts = f"{input_ids.lengths[row]} input_ids and {labels.lengths[row]} labels; there must be as many"
        raise DataError(f"{place.path}:{place.first_row + row}: {counts}")
    check_ids(place.path, input_ids, place.first_row, vocabulary_size, ignored=None)
    check_ids(place.path, labels, place.first_row, vocabulary_size, ignored=IGNORE_INDEX)
    if SEQ_LENGTHS not in table.column_names:
        return RowGroup(input_ids, labels, np.arange(len(input_ids) + 1))
    lengths = read_token_lists(place.path, table, SEQ_LENGTHS, place.first_row)
    ends = np.concatenate(([0], np.cumsum(lengths.values, dtype=np.int64)))
    right = (lengths.count_per_row(lengths.values < 1) == 0) & (np.diff(ends[lengths.offsets]) == input_ids.lengths)
    if not right.all():
        row = int(right.argmin())
        raise DataError(
            f"{place.path}:{place.first_row + row}: {SEQ_LENGTHS} sum to {int(lengths[row].sum())}, "
            f"the row has {input_ids.lengths[row]} tokens"
        )
    return RowGroup(Ragged(input_ids.values, ends), Ragged(labels.values, ends), lengths.offsets)


def keep_sequences(group: RowGroup, keep: Mask) -> RowGroup:
    """The sequences that are kept; rows stay, if only as rows without sequences."""
    if keep.all():
        return group
    firsts = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))[group.row_offsets]
    return RowGroup(group.input_ids.filter(keep), group.labels.filter(keep), firsts)


def _part(column: Ragged, first: int, last: int) -> Ragged:
    offsets = column.offsets[first : last + 1]
    return Ragged(column.values[offsets[0] : offsets[-1]], offsets - offsets[0])
