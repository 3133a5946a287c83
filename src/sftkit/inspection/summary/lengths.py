"""Lengths of rows counted as they come by: exact statistics of any number of rows in the memory of their variety."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.shards.manifest import length_histogram


@dataclass(frozen=True)
class Lengths:
    """How long rows are, in tokens (characters for text).

    median: the mean of the two middle lengths where rows are even in number. p95: the smallest length that 95 % of the
    rows do not exceed. histogram: bucket -> rows; bucket "64" holds 64 to 127.
    """

    min: int
    mean: float
    median: float
    p95: int
    max: int
    histogram: Mapping[str, int]


class LengthCounter:
    """Counts rows by length."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()

    def add(self, lengths: Offsets) -> None:
        """Count some rows; `lengths` has shape (rows,)."""
        values, counts = np.unique(lengths, return_counts=True)
        self._rows.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def merge(self, other: LengthCounter) -> None:
        """Count all rows of another counter too."""
        self._rows.update(other._rows)

    def result(self) -> Lengths | None:
        """The statistics of all rows so far, None when there were none."""
        if not self._rows:
            return None
        values = np.array(sorted(self._rows), np.int64)
        counts = np.array([self._rows[length] for length in values.tolist()], np.int64)
        ends = np.cumsum(counts)
        rows = int(ends[-1])

        def ranked(rank: int) -> int:
            """The length of the row with this rank (the shortest has 0)."""
            return int(values[np.searchsorted(ends, rank, side="right")])

        histogram: Counter[str] = Counter()
        for length, count in zip(values, counts.tolist(), strict=True):
            (bucket,) = length_histogram(np.array([length]))
            histogram[bucket] += count
        return Lengths(
            min=ranked(0),
            mean=round(float((values * counts).sum() / rows), 2),
            median=(ranked((rows - 1) // 2) + ranked(rows // 2)) / 2,
            p95=ranked(-(-rows * 95 // 100) - 1),
            max=ranked(rows - 1),
            histogram=dict(histogram),
        )
