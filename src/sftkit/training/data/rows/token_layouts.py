"""Rows of tokens as other tools write them: padding, numbered packs, loss masks beside labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sftkit.core.rows import (
    ATTENTION_MASK,
    LOSS_MASKS,
    POSITION_IDS,
    Mask,
    Offsets,
    Ragged,
    masked_labels,
    trained_mask,
)
from sftkit.errors import DataError

LAYOUT_COLUMNS = (ATTENTION_MASK, POSITION_IDS, *LOSS_MASKS)
"""Columns that say something about each token. They are read of Parquet that has no manifest of sftkit."""


class LayoutReader:
    """Reads the layout columns of some rows, and says which row is wrong.

    Example:
        >>> ids = Ragged.from_lists([[0, 7, 8, 9], [5, 6, 5, 6]])
        >>> reader = LayoutReader("a.parquet", 1, ids, ids)
        >>> ids, labels, lengths = reader.read({"attention_mask": Ragged.from_lists([[0, 1, 1, 1], [1, 1, 2, 2]])})
        >>> [row.tolist() for row in map(ids.__getitem__, range(2))], lengths.values.tolist(), lengths.offsets.tolist()
        ([[7, 8, 9], [5, 6, 5, 6]], [3, 2, 2], [0, 1, 3])
    """

    def __init__(self, path: object, first_row: int, input_ids: Ragged, labels: Ragged) -> None:
        """Set up the reader.

        Args:
            path: the file, for messages.
            first_row: number of the first row in it, from 1.
            input_ids: ids of each row, possibly with padding and of several sequences.
            labels: labels of each row, of the same lengths.
        """
        self._path, self._first_row = path, first_row
        self._ids, self._labels = input_ids, labels

    def read(self, columns: Mapping[str, Ragged]) -> tuple[Ragged, Ragged, Ragged]:
        """Remove padding, and find the sequences of each row.

        Args:
            columns: the layout columns that the rows have.

        Returns:
            Ids and labels without padding, and the lengths of the sequences of each row.

        Raises:
            DataError: columns differ in length, or contradict each other; the row is named as `path:row`.
        """
        for name, column in columns.items():
            unequal = column.lengths != self._ids.lengths
            if unequal.any():
                row = int(unequal.argmax())
                counts = f"{len(self._ids[row])} input_ids and {len(column[row])} {name}"
                raise self._error(row, f"{counts}; there must be as many of each")
        attention = columns.get(ATTENTION_MASK)
        if attention is not None:
            self._check(attention, attention.values < 0, f"{ATTENTION_MASK} has a number below 0")
        kept = None if attention is None else attention.values != 0
        if kept is not None and not kept.all():
            self._ids, self._labels = self._ids.select(kept), self._labels.select(kept)
            columns = {name: column.select(kept) for name, column in columns.items()}
        self._apply_masks({name: columns[name] for name in LOSS_MASKS if name in columns})
        starts = self._starts(columns)
        return self._ids, self._labels, _lengths(self._ids, starts)

    def _apply_masks(self, masks: Mapping[str, Ragged]) -> None:
        """Let masks decide in rows whose labels train every token; in others, both must train the same tokens."""
        if not masks:
            return
        allowed = np.logical_and.reduce([mask.values == 1 for mask in masks.values()])
        self._labels = masked_labels(self._labels, allowed)
        allowed[self._ids.offsets[:-1][self._ids.lengths > 0]] = False
        reason = f"labels and {' and '.join(masks)} train different tokens; remove the column that is wrong"
        self._check(self._labels, allowed != trained_mask(self._labels), reason)

    def _starts(self, columns: Mapping[str, Ragged]) -> Mask:
        """Which tokens begin a sequence, bool, shape (tokens,)."""
        first = np.zeros(len(self._ids.values), np.bool_)
        first[self._ids.offsets[:-1][self._ids.lengths > 0]] = True
        found: Mask | None = None
        if POSITION_IDS in columns:
            positions = columns[POSITION_IDS].values
            found = first | (np.diff(positions, prepend=-1) != 1)
            self._check(
                columns[POSITION_IDS],
                found & (positions != 0),
                f"{POSITION_IDS} must count from 0 in each sequence, without gaps",
            )
        attention = columns.get(ATTENTION_MASK)
        if attention is not None and len(attention.values) and attention.values.max() > 1:
            numbered = first | (np.diff(attention.values, prepend=0) != 0)
            if found is not None:
                reason = f"{ATTENTION_MASK} and {POSITION_IDS} tell different sequences"
                self._check(attention, numbered != found, reason)
            found = numbered
        return first if found is None else found

    def _check(self, column: Ragged, wrong: Mask, reason: str) -> None:
        if wrong.any():
            raise self._error(int(np.searchsorted(column.offsets, int(wrong.argmax()), side="right")) - 1, reason)

    def _error(self, row: int, reason: str) -> DataError:
        return DataError(f"{self._path}:{self._first_row + row}: {reason}")


def _lengths(ids: Ragged, starts: Mask) -> Ragged:
    """The lengths of the sequences of each row, given which tokens begin one."""
    begins: Offsets = np.flatnonzero(starts)
    lengths = np.diff(np.append(begins, len(ids.values)))
    per_row = ids.count_per_row(starts)
    return Ragged.from_lengths(lengths.astype(np.int32), per_row)
