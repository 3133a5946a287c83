"""How many bad rows a run may have: a count, or a fraction of the rows that are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from sftkit.sources.units import ScannedFile

_TEXT = frozenset({"jsonl", "json_array", "csv", "tsv"})
_LEAST_BYTES = 2  # of a row: a character, and what ends it


@dataclass(frozen=True)
class Tolerance:
    """What `max_bad_rows` allows.

    most: a count, or below 1 a fraction.
    """

    most: float

    def allowed(self, read: float) -> float:
        """How many of so many rows (also: infinitely many) may be bad. Whole, or infinite."""
        if self.most >= 1 or not self.most:
            return int(self.most)
        if math.isinf(read):
            return math.inf
        return math.floor(Fraction(str(self.most)) * int(read))  # of 0.29 * 100, floats would make 28

    def exceeded(self, read: int) -> str:
        """How a message about too many bad rows, of so many, goes on; nothing where none is allowed."""
        if self.most >= 1:
            return f", more than max_bad_rows={self.most:g}"
        return (
            f" of {read} read, more than max_bad_rows={self.most:g} allows ({self.allowed(read)})" if self.most else ""
        )


def most_rows(files: Sequence[ScannedFile]) -> dict[int, float]:
    """How many rows each unit can have at most, by its number; infinite where nothing tells before it is read.

    The numbers of the first rows of two units in a row tell it of the first of them.
    """
    most: dict[int, float] = {}
    for file in files:
        for unit, following in pairwise(file.units):
            most[unit.number] = following.part.first_number - unit.part.first_number
        for unit in file.units[-1:]:
            if file.file.format in _TEXT and file.file.compression is None:
                most[unit.number] = unit.part.size // _LEAST_BYTES + 1
            else:
                most[unit.number] = math.inf if unit.part.rows is None else unit.part.rows
    return most
