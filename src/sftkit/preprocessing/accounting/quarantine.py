"""The quarantined rows of a run, read from disk when needed because they may not fit in memory, and their limit."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice, pairwise

from sftkit.config.interpolated import interpolated_values, replace_values
from sftkit.core.row_log import BadRow
from sftkit.ordering.packing import pack_length_of
from sftkit.preprocessing.accounting.row_counts import RowAccountingError, RowCounts
from sftkit.preprocessing.pack_overflow import overflowing_rows
from sftkit.preprocessing.plan import Plan
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.sources.reading_hints import hint_for_reasons
from sftkit.sources.work_units import TEXT_FORMATS, FilePart, WorkUnit

_MIN_ROW_BYTES = 2  # a character and a separator
_ROWS_IN_MESSAGE = 10


@dataclass(frozen=True)
class BadRowBudget:
    """How many rows may be bad."""

    limit: float
    """The option `max_bad_rows`: a count, or a fraction below 1."""

    def allowed(self, read: float) -> float:
        """How many of `read` rows may be bad; `read` and the result may be infinite.

        Example:
            >>> BadRowBudget(0.29).allowed(100)
            29
        """
        if self.limit >= 1 or not self.limit:
            return int(self.limit)
        if math.isinf(read):
            return math.inf
        return math.floor(Fraction(str(self.limit)) * int(read))  # as floats, 0.29 * 100 is less than 29

    def exceeded_by(self, read: int) -> str:
        """The part of an error message that names the limit, after the number of bad rows; "" if none is allowed."""
        if self.limit >= 1:
            return f", more than max_bad_rows={self.limit:g}"
        if not self.limit:
            return ""
        return f" of {read} read, more than max_bad_rows={self.limit:g} allows ({self.allowed(read)})"


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


class Quarantine(Collection[tuple[str, BadRow]]):
    """The quarantined rows as (path, row), in the order of the sources and their rows."""

    def __init__(self, plan: Plan, staged: Sequence[StagedUnit], limit: int | None = None) -> None:
        """Describe the rows; they are read when iterated over.

        Args:
            plan: the plan of the run.
            staged: its staged units.
            limit: how many rows to yield at most.
        """
        self._units = plan.units
        self._values = interpolated_values(plan.config)
        self._staged = staged
        self._pack_length = pack_length_of(plan.config)
        self._limit = limit

    def __len__(self) -> int:
        count = sum(unit.quarantined for unit in self._staged)
        return count if self._limit is None else min(count, self._limit)

    def __iter__(self) -> Iterator[tuple[str, BadRow]]:
        """Read the rows.

        Raises:
            SourceError: a row that is longer than a pack can no longer be read from its source.
            RowAccountingError: there are fewer or more rows than were counted.
        """
        found = 0
        for row in islice(self._all(), self._limit):
            found += 1
            yield row
        if found != len(self):
            raise RowAccountingError(f"{len(self)} bad rows were counted, but {found} were stored")

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)

    def _all(self) -> Iterator[tuple[str, BadRow]]:
        for staged in self._staged:
            unit = self._units[staged.number]
            too_long = overflowing_rows(staged, unit, self._pack_length) if self._pack_length is not None else iter(())
            for row in heapq.merge(staged.bad_rows, too_long, key=lambda row: row.number):
                path, number = unit.locate(row.number, staged.rows_before)
                yield replace_values(path, self._values), replace(row, number=number)


def bad_rows_message(bad: Quarantine, counts: RowCounts, budget: BadRowBudget, *, is_complete: bool, where: str) -> str:
    """The error message for too many bad rows: the first of them by `path:row`, and the file that holds them.

    If no row was kept and all fail for the same reason, the config is probably wrong, and one sentence is enough.

    Args:
        bad: the rows that were saved.
        counts: what became of all rows.
        budget: the limit that was exceeded.
        is_complete: whether all rows were read.
        where: the file that the rows were saved in.
    """
    count = counts.quarantined
    first = list(islice(bad, _ROWS_IN_MESSAGE))
    hint = hint_for_reasons(row.reason for _, row in first)
    if len(counts.reasons) == 1 and count > _ROWS_IN_MESSAGE and not counts.kept and is_complete:
        path, row = first[0]
        problem = f"all {count} have the same problem: {row.reason} ({path}:{row.number} is the first)"
        return f"no row can be used; {problem}{hint}"
    head = f"{count}{'' if is_complete else ' or more'} row{'s' if count > 1 else ''} cannot be used"
    lines = [f"{head}{budget.exceeded_by(counts.read)}:"]
    lines += [f"  {path}:{row.number}: {row.reason}" for path, row in first]
    if count > len(first):
        lines.append(f"  ... and {count - len(first)} more")
    saved = "All of them are" if len(bad) == count else f"The first {len(bad)} of them are"
    if is_complete:
        lines.append(f"{saved} in {where}; fix them, or set max_bad_rows={count} to skip them{hint}.")
    else:
        lines.append(f"{saved} in {where}; the run stopped before all rows were read. Fix these rows first.")
    return "\n".join(lines)
