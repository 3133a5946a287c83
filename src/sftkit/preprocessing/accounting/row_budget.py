"""Limits on the number of rows that may be quarantined or dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from sftkit.config.commands import PreprocessConfig
from sftkit.sources.work_units import TEXT_FORMATS, FilePart, WorkUnit

EXCESS_ROWS = 1000
"""How many bad or dropped rows over the limit are collected before a run stops."""

_MIN_ROW_BYTES = 2  # a character and a separator


@dataclass(frozen=True)
class RowBudget:
    """How many rows may be removed."""

    key: str
    """The option."""
    limit: float | None
    """Its value: a count, or a fraction below 1; None for no limit."""

    def allowed(self, read: float) -> float:
        """How many of `read` rows may be removed; `read` and the result may be infinite.

        Example:
            >>> RowBudget("max_bad_rows", 0.29).allowed(100)
            29
        """
        if self.limit is None:
            return math.inf
        if self.limit >= 1 or not self.limit:
            return int(self.limit)
        if math.isinf(read):
            return math.inf
        return math.floor(Fraction(str(self.limit)) * int(read))  # as floats, 0.29 * 100 is less than 29

    def exceeded_by(self, read: int) -> str:
        """The part of an error message that names the limit, after the number of removed rows."""
        if self.limit is None or self.limit >= 1 or not self.limit:
            return f", more than {self.key}={self.limit:g}"
        return f" of {read} read, more than {self.key}={self.limit:g} allows ({self.allowed(read)})"


def budgets_of(config: PreprocessConfig) -> tuple[RowBudget, RowBudget]:
    """Return the limits on quarantined and on dropped rows."""
    return RowBudget("max_bad_rows", config.max_bad_rows), RowBudget("max_dropped_rows", config.max_dropped_rows)


def max_rows_per_unit(units: Sequence[WorkUnit]) -> dict[int, float]:
    """Bound the number of rows of each unit, by unit number; infinite if it is unknown before the unit is read."""
    most = {unit.number: sum(map(_max_rows, unit.parts)) for unit in units}
    for unit, following in pairwise(units):
        if unit.file is following.file:
            most[unit.number] = following.first_number - unit.first_number
    return most


def _max_rows(each: FilePart) -> float:
    if each.file.format in TEXT_FORMATS and each.file.compression is None:
        return each.part.size // _MIN_ROW_BYTES + 1
    return math.inf if each.part.rows is None else each.part.rows
