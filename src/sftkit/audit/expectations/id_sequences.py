"""Sequences of ids: what several have in common, and where one occurs in many rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.audit.expectations.expected import END, START, TokenIds
from sftkit.core.rows import Ids, Mask, Offsets


def common_prefix(rows: Sequence[TokenIds]) -> TokenIds:
    """The longest sequence of ids that all sequences begin with.

    Example:
        >>> common_prefix([(1, 2, 3), (1, 2, 4)])
        (1, 2)
    """
    shortest = min(rows, key=len)
    for place, value in enumerate(shortest):
        if any(row[place] != value for row in rows):
            return shortest[:place]
    return shortest


def common_suffix(rows: Sequence[TokenIds]) -> TokenIds:
    """The longest sequence of ids that all sequences end with."""
    return common_prefix([row[::-1] for row in rows])[::-1]


def begins_with(sequence: TokenIds, begin: TokenIds) -> bool:
    """Whether a sequence begins with another."""
    return sequence[: len(begin)] == begin


def ends_with(sequence: TokenIds, end: TokenIds) -> bool:
    """Whether a sequence ends with another."""
    return sequence[len(sequence) - len(end) :] == end


@dataclass(frozen=True)
class ConcatenatedRows:
    """Concatenated rows: row i is `values[first[i]:last[i]]`, without the padding around it."""

    values: Ids
    """The ids of all rows, int32, shape (tokens,)."""
    offsets: Offsets
    """Start of each row, padding included, int64, shape (rows + 1,)."""
    first: Offsets
    """Position of the first token of each row, int64, shape (rows,)."""
    last: Offsets
    """Position after the last token of each row, int64, shape (rows,)."""

    def rows_of(self, positions: Offsets) -> Offsets:
        """The row of each position."""
        rows: Offsets = np.searchsorted(self.offsets, positions, side="right") - 1
        return rows

    def rows_of_many(self, positions: Offsets) -> Offsets:
        """The row of each position, for ascending positions of which a row has many."""
        bounds = np.searchsorted(positions, self.offsets)
        return np.repeat(np.arange(len(self.first)), np.diff(bounds))

    def follows(self, positions: Offsets, rows: Offsets, sequence: Sequence[int]) -> Mask:
        """Whether a sequence starts at each position. A row that ends within the sequence still matches: it was cut."""
        last = self.last[rows]
        same = np.ones(len(positions), np.bool_)
        for step, wanted in enumerate(sequence):
            at = positions + step
            inside = at < last
            same &= ~inside | (wanted != END and self._at(at) == wanted)
        return same

    def precedes(self, positions: Offsets, rows: Offsets, sequence: Sequence[int]) -> Mask:
        """Whether a sequence ends directly before each position, entirely within that row."""
        same = positions - len(sequence) >= self.first[rows] - (START in sequence)
        for step, wanted in enumerate(reversed(sequence), start=1):
            at = positions - step
            same &= (at < self.first[rows]) if wanted == START else self._at(at) == wanted
        return same

    def surrounds(self, positions: Offsets, sequence: Sequence[int]) -> Mask:
        """Whether each position lies in a complete occurrence of a sequence within one row."""
        rows = self.rows_of(positions)
        last = self.last[rows]
        found = np.zeros(len(positions), np.bool_)
        for place in range(len(sequence)):
            whole = positions - place + len(sequence) <= last
            before, after = sequence[:place], sequence[place:]
            found |= whole & self.precedes(positions, rows, before) & self.follows(positions, rows, after)
        return found

    def ends_of(self, sequence: Sequence[int]) -> Offsets:
        """The positions directly after each occurrence of a sequence within one row, ascending."""
        at = np.flatnonzero(self.values == sequence[-1])
        if len(sequence) > 1:
            at = at[self.precedes(at, self.rows_of(at), sequence[:-1])]
        return at + 1

    def _at(self, positions: Offsets) -> Ids:
        return self.values.take(positions, mode="clip")
