"""Rows in the pipeline: Python objects until they are tokenized, flat arrays after that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Row = dict[str, Any]
Ids = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

INPUT_IDS = "input_ids"
LABELS = "labels"
ATTENTION_MASK = "attention_mask"
POSITION_IDS = "position_ids"
"""Positions of the tokens in their sequence, which other tools write; sftkit computes them."""
SEQ_LENGTHS = "seq_lengths"
"""Tokens of each sequence in a pack, in order; they sum to the tokens of the row."""
PADDING = "padding"
"""Tokens of padding at the end of a pack, the last of its `seq_lengths`; 0 for none. Packs without padding lack it."""
SOURCE = "source"
"""The data set that a row comes from, as an index into `Manifest.source_names`; in packs a list, one per sequence."""

TOKEN_COLUMNS = (INPUT_IDS, LABELS, ATTENTION_MASK)

LOSS_MASKS = ("completion_mask", "assistant_masks", "assistant_mask", "loss_mask")
"""Columns of TRL, transformers and others that say which tokens carry a loss; with several, those where all are 1."""

IGNORE_INDEX = -100
"""Label of a position that carries no loss (the convention of PyTorch's cross entropy)."""


SHIFTED_LABELS = (
    "its labels are shifted already (each is the next token); the label of a token must be the token itself, because "
    "the loss shifts them"
)
"""Why a row with such labels cannot be used."""


@dataclass(frozen=True)
class Ragged:
    """Rows of numbers of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`.

    Example:
        >>> rows = Ragged.from_lists([[1, 2, 3], [], [4]])
        >>> len(rows), rows.lengths.tolist(), rows[0].tolist()
        (3, [3, 0, 1], [1, 2, 3])
    """

    values: npt.NDArray[Any]
    """All rows, concatenated, shape (total,): int32, or float32 for loss weights."""
    offsets: Offsets
    """Start of each row and the end of the last one, int64, shape (rows + 1,), starting at 0."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Offsets:
        """Number of values in each row, int64, shape (rows,)."""
        return np.diff(self.offsets)

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[float] | Ids], dtype: npt.DTypeLike = np.int32) -> Ragged:
        """Flatten lists or arrays of ids, or of numbers of another type."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        offsets = lengths_to_offsets(lengths)
        values = np.empty(int(offsets[-1]), dtype)
        for row, start in zip(rows, offsets, strict=False):
            values[start : start + len(row)] = row
        return cls(values, offsets)

    @classmethod
    def from_lengths(cls, values: npt.NDArray[Any], lengths: Offsets) -> Ragged:
        """Build rows from concatenated values and the length of each row, int64, shape (rows,)."""
        return cls(values, lengths_to_offsets(lengths))

    def filter(self, keep: Mask) -> Ragged:
        """Keep the rows where `keep` (bool, shape (rows,)) is true."""
        if keep.all():
            return self
        lengths = self.lengths
        return Ragged(self.values[np.repeat(keep, lengths)], lengths_to_offsets(lengths[keep]))

    def select(self, keep: Mask) -> Ragged:
        """Keep the values where `keep` (bool, shape (total,)) is true; the rows stay, and get shorter."""
        if keep.all():
            return self
        return Ragged.from_lengths(self.values[keep], self.count_per_row(keep))

    def truncate(self, limits: Offsets) -> Ragged:
        """Keep the first `limits[i]` values of each row i."""
        lengths = self.lengths
        if (lengths <= limits).all():
            return self
        kept = np.minimum(lengths, limits)
        position = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], lengths)
        return Ragged(self.values[position < np.repeat(kept, lengths)], lengths_to_offsets(kept))

    def keep_last(self, limits: Offsets) -> Ragged:
        """Keep the last `limits[i]` values of each row i."""
        lengths = self.lengths
        if (lengths <= limits).all():
            return self
        kept = np.minimum(lengths, limits)
        position = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], lengths)
        return Ragged(self.values[position >= np.repeat(lengths - kept, lengths)], lengths_to_offsets(kept))

    def count_per_row(self, flags: Mask) -> Offsets:
        """Count the flagged values of each row; `flags` is bool, shape (total,)."""
        running = np.concatenate(([0], np.cumsum(flags, dtype=np.int64)))
        return running[self.offsets[1:]] - running[self.offsets[:-1]]


def trained_mask(labels: Ragged) -> Mask:
    """Which labels carry a loss, bool, shape (total,). The first token of a row never does: nothing predicts it."""
    trained: Mask = labels.values != IGNORE_INDEX
    trained[labels.offsets[:-1][labels.lengths > 0]] = False
    return trained


def masked_labels(labels: Ragged, allowed: Mask) -> Ragged:
    """Remove the loss where a mask forbids it, in rows whose labels train every token; such labels say nothing.

    Args:
        labels: labels of each row.
        allowed: which tokens may carry a loss, bool, shape (total,).

    Example:
        >>> labels = Ragged.from_lists([[5, 6], [-100, 7, -100]])
        >>> masked_labels(labels, np.array([False, True, False, False, True])).values.tolist()
        [-100, 6, -100, 7, -100]
    """
    inner = labels.values == IGNORE_INDEX
    inner[labels.offsets[:-1][labels.lengths > 0]] = False
    trains_all = np.repeat(labels.count_per_row(inner) == 0, labels.lengths)
    return Ragged(np.where(trains_all & ~allowed, np.int32(IGNORE_INDEX), labels.values), labels.offsets)


def has_shifted_labels(input_ids: Ragged, labels: Ragged) -> Mask:
    """Tell which rows have labels that are the next token instead of the token itself, bool, shape (rows,).

    Args:
        input_ids: ids of each row.
        labels: labels of each row, of the same lengths.

    Example:
        >>> ids = Ragged.from_lists([[1, 2, 3], [1, 2, 3]])
        >>> has_shifted_labels(ids, Ragged.from_lists([[2, 3, 4], [-100, 2, 3]])).tolist()
        [True, False]
    """
    trained = labels.values != IGNORE_INDEX
    other = trained & (labels.values != input_ids.values)
    if not other.any():
        return np.zeros(len(labels), np.bool_)
    inner = trained.copy()
    inner[input_ids.offsets[1:][input_ids.lengths > 0] - 1] = False  # what follows the last token is not known
    is_next = labels.values == np.append(input_ids.values[1:], np.int32(IGNORE_INDEX))
    differs = input_ids.count_per_row(other) > 0
    result: Mask = differs & (input_ids.count_per_row(inner) > 0) & (input_ids.count_per_row(inner & ~is_next) == 0)
    return result


def lengths_to_offsets(lengths: Offsets) -> Offsets:
    """Convert lengths of rows to the offsets of a `Ragged`."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ragged_where(first: Mask, ones: Ragged, others: Ragged) -> Ragged:
    """Merge two columns: take the next row of `ones` where `first` (bool, shape (rows,)) is true, else of `others`."""
    lengths = np.empty(len(first), np.int64)
    lengths[first], lengths[~first] = ones.lengths, others.lengths
    from_ones = np.repeat(first, lengths)
    values = np.empty(len(from_ones), ones.values.dtype)
    values[from_ones], values[~from_ones] = ones.values, others.values
    return Ragged.from_lengths(values, lengths)


@dataclass(frozen=True)
class LabeledTokens:
    """Ids of rows, their labels, kinds and loss weights, of the same shape."""

    input_ids: Ragged
    labels: Ragged
    kinds: Ragged | None = None
    """The kind of each token, a `TokenKind`; None if the config does not ask for them."""
    weights: Ragged | None = None
    """The loss weight of each token, float32; None if all are 1."""
    inexact: Mask | None = None
    """Rows in which an answer does not follow the tokens that its prompt has at inference; None if this is unknown."""

    def truncate(self, limits: Offsets) -> LabeledTokens:
        """Keep the first `limits[i]` tokens of each row i."""
        kinds = None if self.kinds is None else self.kinds.truncate(limits)
        weights = None if self.weights is None else self.weights.truncate(limits)
        return LabeledTokens(
            self.input_ids.truncate(limits), self.labels.truncate(limits), kinds, weights, self.inexact
        )


@dataclass(frozen=True)
class Batch:
    """Some rows of one source."""

    rows: list[Row]
    """The columns that are Python objects, one dict per row."""
    numbers: Offsets
    """The row number of each row in its source, from 1, int64, shape (rows,)."""
    tokens: Mapping[str, Ragged] = field(default_factory=dict)
    """The token columns, by name, each with one entry per row."""
    source_bytes: int = 0
    """Bytes that a reader took from the source for these rows, as far as it knows; shown as progress, no more."""

    def __len__(self) -> int:
        return len(self.rows)

    def filter(self, keep: Mask) -> Batch:
        """Keep the rows where `keep` is true."""
        if keep.all():
            return self
        rows = [row for row, kept in zip(self.rows, keep, strict=True) if kept]
        return Batch(rows, self.numbers[keep], {name: column.filter(keep) for name, column in self.tokens.items()})

    def slice(self, start: int, stop: int) -> Batch:
        """Rows start (inclusive) to stop (exclusive)."""
        places = np.arange(len(self))
        return self.filter((places >= start) & (places < stop))

    def with_rows(self, rows: list[Row]) -> Batch:
        """The same rows with other Python columns."""
        return Batch(rows, self.numbers, self.tokens)

    def with_tokens(self, **columns: Ragged) -> Batch:
        """The same rows with token columns added or replaced."""
        return Batch(self.rows, self.numbers, {**self.tokens, **columns})

    def columns(self) -> list[str]:
        """Names of the columns that at least one row has, token columns last."""
        seen: dict[str, None] = {}
        for row in self.rows:
            seen.update(dict.fromkeys(row))
        return [*seen, *self.tokens]
