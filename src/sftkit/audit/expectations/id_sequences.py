"""Sequences of ids looked for at many places of many rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.audit.expectations.expected import END, START, TokenIds
from sftkit.core.rows import Ids, Mask, Offsets


def common_prefix(rows: Sequence[TokenIds]) -> TokenIds:
    """The ids that all sequences begin with."""
    shortest = min(rows, key=len)
    for place, value in enumerate(shortest):
        if any(row[place] != value for row in rows):
            return shortest[:place]
    return shortest


def common_suffix(rows: Sequence[TokenIds]) -> TokenIds:
    """The ids that all sequences end with."""
    return common_prefix([row[::-1] for row in rows])[::-1]


def begins_with(sequence: TokenIds, begin: TokenIds) -> bool:
    """Whether a sequence begins with another."""
    return sequence[: len(begin)] == begin


def ends_with(sequence: TokenIds, end: TokenIds) -> bool:
    """Whether a sequence ends with another."""
    return sequence[len(sequence) - len(end) :] == end


@dataclass(frozen=True)
class ConcatenatedRows:
    """Rows laid end to end: row i is `values[first[i]:last[i]]`, where padding around it is left out.

    offsets: where rows begin, padding included, int64, shape (rows + 1,).
    """

    values: Ids
    offsets: Offsets
    first: Offsets
    last: Offsets

    def rows_of(self, positions: Offsets) -> Offsets:
        """The row that each of some positions lies in."""
        rows: Offsets = np.searchsorted(self.offsets, positions, side="right") - 1
        return rows

    def rows_of_many(self, positions: Offsets) -> Offsets:
        """The same for ascending positions of which there are many a row."""
        bounds = np.searchsorted(positions, self.offsets)
        return np.repeat(np.arange(len(self.first)), np.diff(bounds))

    def follows(self, positions: Offsets, rows: Offsets, sequence: Sequence[int]) -> Mask:
        """Whether a sequence stands from each position of some rows on. A row that ends within it is cut: that is no
        difference.
        """
        last = self.last[rows]
        same = np.ones(len(positions), np.bool_)
        for step, wanted in enumerate(sequence):
            at = positions + step
            inside = at < last
            same &= ~inside | (wanted != END and self._at(at) == wanted)
        return same

    def precedes(self, positions: Offsets, rows: Offsets, sequence: Sequence[int]) -> Mask:
        """Whether a sequence ends right before each position (the end of a row is one too), all of it in that row."""
        same = positions - len(sequence) >= self.first[rows] - (START in sequence)
        for step, wanted in enumerate(reversed(sequence), start=1):
            at = positions - step
            same &= (at < self.first[rows]) if wanted == START else self._at(at) == wanted
        return same

    def surrounds(self, positions: Offsets, sequence: Sequence[int]) -> Mask:
        """Whether each position is one of a sequence that stands there in full, in one row."""
        rows = self.rows_of(positions)
        last = self.last[rows]
        found = np.zeros(len(positions), np.bool_)
        for place in range(len(sequence)):
            whole = positions - place + len(sequence) <= last
            before, after = sequence[:place], sequence[place:]
            found |= whole & self.precedes(positions, rows, before) & self.follows(positions, rows, after)
        return found

    def ends_of(self, sequence: Sequence[int]) -> Offsets:
        """The positions right behind each place where a sequence stands in one row, ascending."""
        at = np.flatnonzero(self.values == sequence[-1])
        if len(sequence) > 1:
            at = at[self.precedes(at, self.rows_of(at), sequence[:-1])]
        return at + 1

    def _at(self, positions: Offsets) -> Ids:
        return self.values.take(positions, mode="clip")
