"""What flows through the pipeline: rows that are Python objects until they are text, and flat arrays from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Row = dict[str, Any]
Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

INPUT_IDS = "input_ids"
LABELS = "labels"
ATTENTION_MASK = "attention_mask"
SEQ_LENGTHS = "seq_lengths"
"""Tokens of each sequence in a pack, in order; they sum to the tokens of the row."""

TOKEN_COLUMNS = (INPUT_IDS, LABELS, ATTENTION_MASK)

IGNORE_INDEX = -100
"""Label of a position that carries no loss (the convention of PyTorch's cross entropy)."""


@dataclass(frozen=True)
class Ragged:
    """Rows of integers of different length: row i is `values[offsets[i]:offsets[i + 1]]`.

    values: int32, shape (total,). offsets: int64, shape (rows + 1,), starting at 0.
    """

    values: Ids
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Ids:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Offsets:
        """Tokens of each row, shape (rows,)."""
        return np.diff(self.offsets)

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int] | Ids]) -> Ragged:
        """Flatten lists or arrays of ids."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        offsets = lengths_to_offsets(lengths)
        values = np.empty(int(offsets[-1]), np.int32)
        for row, start in zip(rows, offsets, strict=False):
            values[start : start + len(row)] = row
        return cls(values, offsets)

    @classmethod
    def from_lengths(cls, values: Ids, lengths: Offsets) -> Ragged:
        """Values laid end to end and the length of each row, shape (rows,)."""
        return cls(values, lengths_to_offsets(lengths))

    def filter(self, keep: Mask) -> Ragged:
        """The rows where `keep` (bool, shape (rows,)) is true, in order."""
        if keep.all():
            return self
        lengths = self.lengths
        return Ragged(self.values[np.repeat(keep, lengths)], lengths_to_offsets(lengths[keep]))

    def truncate(self, limits: Offsets) -> Ragged:
        """The first `limits[i]` values of each row i (all of a shorter row)."""
        lengths = self.lengths
        if (lengths <= limits).all():
            return self
        kept = np.minimum(lengths, limits)
        position = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], lengths)
        return Ragged(self.values[position < np.repeat(kept, lengths)], lengths_to_offsets(kept))

    def count_per_row(self, flags: Mask) -> Offsets:
        """How many values of each row are flagged; `flags` is bool, shape (total,)."""
        running = np.concatenate(([0], np.cumsum(flags, dtype=np.int64)))
        return running[self.offsets[1:]] - running[self.offsets[:-1]]


def trained_mask(labels: Ragged) -> Mask:
    """Which labels carry a loss, shape (total,): nothing comes before the first token of a row to predict it from."""
    trained: Mask = labels.values != IGNORE_INDEX
    trained[labels.offsets[:-1][labels.lengths > 0]] = False
    return trained


def lengths_to_offsets(lengths: Offsets) -> Offsets:
    """Lengths of rows -> offsets of a `Ragged`."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ragged_where(first: Mask, ones: Ragged, others: Ragged) -> Ragged:
    """Rows of two columns as one: those of `ones` where `first` (bool, shape (rows,)) is true, else of `others`."""
    lengths = np.empty(len(first), np.int64)
    lengths[first], lengths[~first] = ones.lengths, others.lengths
    from_ones = np.repeat(first, lengths)
    values = np.empty(len(from_ones), ones.values.dtype)
    values[from_ones], values[~from_ones] = ones.values, others.values
    return Ragged.from_lengths(values, lengths)


@dataclass(frozen=True)
class LabeledTokens:
    """Ids of some rows and their labels, of the same shape."""

    input_ids: Ragged
    labels: Ragged


@dataclass(frozen=True)
class Batch:
    """Some rows of one source, side by side.

    rows: the columns that are still Python objects, one dict a row.
    numbers: the row number of each within its source (the first is 1), int64, shape (rows,).
    tokens: the token columns, each a `Ragged` of as many rows.
    """

    rows: list[Row]
    numbers: Offsets
    tokens: Mapping[str, Ragged] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def filter(self, keep: Mask) -> Batch:
        """The rows where `keep` is true, in order."""
        if keep.all():
            return self
        rows = [row for row, kept in zip(self.rows, keep, strict=True) if kept]
        return Batch(rows, self.numbers[keep], {name: column.filter(keep) for name, column in self.tokens.items()})

    def slice(self, start: int, stop: int) -> Batch:
        """Rows start to stop, stop left out."""
        places = np.arange(len(self))
        return self.filter((places >= start) & (places < stop))

    def with_rows(self, rows: list[Row]) -> Batch:
        """The same rows with other Python columns."""
        return Batch(rows, self.numbers, self.tokens)

    def with_tokens(self, **columns: Ragged) -> Batch:
        """The same rows with token columns added or replaced."""
        return Batch(self.rows, self.numbers, {**self.tokens, **columns})

    def columns(self) -> list[str]:
        """Names of all columns that at least one row has, token columns last."""
        seen: dict[str, None] = {}
        for row in self.rows:
            seen.update(dict.fromkeys(row))
        return [*seen, *self.tokens]
