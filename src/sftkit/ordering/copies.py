"""The rows of a data set in the order in which a mix takes them: one whole copy after another, each shuffled.

A mix takes the first rows of this sequence, so no row is used twice before every row is used once, a smaller amount is
part of a larger one, and the amount of one data set does not change which rows are taken of another.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sftkit.config.schema.data_config import ROWS
from sftkit.core.rows import Offsets, lengths_to_offsets
from sftkit.ordering.splitting import Indices

_COPIES = 1
"""Keeps the random numbers of copies apart from others of the same seed."""


class RowCopies:
    """An endless sequence of the rows of one data set.

    Amounts are in a measure: `rows`, `tokens` or `trained_tokens`.

    Example:
        >>> copies = RowCopies(np.array([7, 8, 9]), {"tokens": np.array([10, 20, 30])}, seed=1)
        >>> copies.whole("rows"), copies.whole("tokens"), copies.count_for(120, "tokens")
        (3, 60, 6)
        >>> [sorted(part.tolist()) for part in copies.take(0, 6)]
        [[7, 8, 9], [7, 8, 9]]
    """

    def __init__(self, rows: Indices, sizes: Mapping[str, Offsets], seed: int) -> None:
        """Args: rows: shape (rows,). sizes: the size of each row in each measure but `rows`. seed: of the shuffling."""
        self._rows, self._sizes, self._seed = rows, sizes, seed
        self._wholes = {ROWS: len(rows), **{measure: int(each.sum()) for measure, each in sizes.items()}}
        self._ends: dict[str, tuple[int, Offsets]] = {}  # by measure: a copy, and its running sums

    def __len__(self) -> int:
        """The number of rows in a copy."""
        return len(self._rows)

    def whole(self, measure: str) -> int:
        """Return the size of one copy."""
        return self._wholes[measure]

    def take(self, start: int, stop: int) -> list[Indices]:
        """Return the rows from position `start` to `stop` (exclusive): an array for each copy, as it is shuffled."""
        return [self._rows[places] for places in self._places(start, stop)]

    def take_in_order(self, start: int, stop: int) -> list[Indices]:
        """Return the same rows as `take`, those of each copy in the order of the data set."""
        return [self._rows[np.sort(places)] for places in self._places(start, stop)]

    def amount_of(self, count: int, measure: str) -> int:
        """Return the size of the first `count` rows."""
        if measure == ROWS:
            return count
        copies, rest = divmod(count, len(self))
        return copies * self.whole(measure) + (int(self._sums(measure, copies)[rest]) if rest else 0)

    def count_for(self, amount: float, measure: str) -> int:
        """Return how many rows come nearest to an amount; fewer if two numbers are equally near.

        Rows of size 0 are taken along with those before them.
        """
        copies, rest = self._divide(amount, measure)
        if not rest or measure == ROWS:
            return copies * len(self) + int(np.ceil(rest - 0.5))
        sums = self._sums(measure, copies)
        after = int(np.searchsorted(sums, rest, side="right"))
        before = after - 1  # sums[0] is 0
        if after < len(sums) and sums[after] - rest < rest - sums[before]:
            before = int(np.searchsorted(sums, sums[after], side="right")) - 1
        return copies * len(self) + before

    def count_within(self, amount: int, measure: str) -> int:
        """Return how many rows do not exceed an amount."""
        copies, rest = self._divide(amount, measure)
        if not rest or measure == ROWS:
            return copies * len(self) + int(rest)
        return copies * len(self) + int(np.searchsorted(self._sums(measure, copies), rest, side="right")) - 1

    def _divide(self, amount: float, measure: str) -> tuple[int, float]:
        """Divide an amount into whole copies and a rest."""
        nearest = round(amount)
        if abs(amount - nearest) < 1e-9 * max(1.0, amount):  # a share of the whole is rarely an exact float
            amount = nearest
        copies, rest = divmod(amount, self.whole(measure))
        return int(copies), rest

    def _places(self, start: int, stop: int) -> list[Offsets]:
        size, parts = len(self), []
        for copy in range(start // size, -(-stop // size)) if stop > start else ():
            first = copy * size
            parts.append(self._permutation(copy)[max(start - first, 0) : min(stop - first, size)])
        return parts

    def _permutation(self, copy: int) -> Offsets:
        return np.random.default_rng([self._seed, _COPIES, copy]).permutation(len(self))

    def _sums(self, measure: str, copy: int) -> Offsets:
        """The running sums of the sizes in a copy, from 0, shape (rows + 1,); those of the last copy are kept."""
        if measure not in self._ends or self._ends[measure][0] != copy:
            self._ends[measure] = (copy, lengths_to_offsets(self._sizes[measure][self._permutation(copy)]))
        return self._ends[measure][1]
