"""Exact statistics of row lengths, in memory that grows with the number of distinct lengths only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.shards.manifest import length_histogram


@dataclass(frozen=True)
class Lengths:
    """Statistics of row lengths, in tokens (characters for text)."""

    min: int
    mean: float
    median: float
    """The mean of the two middle lengths when the number of rows is even."""
    p95: int
    """The smallest length that 95 % of the rows do not exceed."""
    max: int
    histogram: Mapping[str, int]
    """Number of rows by length: bucket "64" counts those of 64 to 127."""


class LengthCounter:
    """Counts rows by length.

    Example:
        >>> counter = LengthCounter()
        >>> counter.add(np.array([3, 5, 5]))
        >>> counter.result()
        Lengths(min=3, mean=4.33, median=5.0, p95=5, max=5, histogram={'2': 1, '4': 2})
    """

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()

    def add(self, lengths: Offsets) -> None:
        """Count some rows, given their lengths, shape (rows,)."""
        values, counts = np.unique(lengths, return_counts=True)
        self._rows.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def merge(self, other: LengthCounter) -> None:
        """Add the counts of another counter."""
        self._rows.update(other._rows)

    def result(self) -> Lengths | None:
        """Return the statistics of all rows so far, None when there were none."""
        if not self._rows:
            return None
        values = np.array(sorted(self._rows), np.int64)
        counts = np.array([self._rows[length] for length in values.tolist()], np.int64)
        ends = np.cumsum(counts)
        rows = int(ends[-1])

        def length_at(rank: int) -> int:
            """The length at a rank in ascending order, from 0."""
            return int(values[np.searchsorted(ends, rank, side="right")])

        histogram: Counter[str] = Counter()
        for length, count in zip(values, counts.tolist(), strict=True):
            (bucket,) = length_histogram(np.array([length]))
            histogram[bucket] += count
        return Lengths(
            min=length_at(0),
            mean=round(float((values * counts).sum() / rows), 2),
            median=(length_at((rows - 1) // 2) + length_at(rows // 2)) / 2,
            p95=length_at(-(-rows * 95 // 100) - 1),
            max=length_at(rows - 1),
            histogram=dict(histogram),
        )
