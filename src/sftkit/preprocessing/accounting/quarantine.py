"""All quarantined rows of a run, read from where they are when they are wanted: they may be more than memory holds."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise

from sftkit.core.row_log import BadRow
from sftkit.ordering.packing import pack_length_of
from sftkit.preprocessing.accounting.row_counts import RowAccountingError, RowCounts
from sftkit.preprocessing.pack_overflow import overflowing_rows
from sftkit.preprocessing.planning import Plan
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.sources.work_units import ScannedFile

_TEXT = frozenset({"jsonl", "json_array", "csv", "tsv"})
_LEAST_BYTES = 2  # of a row: a character, and what ends it


@dataclass(frozen=True)
class BadRowBudget:
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

    def exceeded_by(self, read: int) -> str:
        """How a message about too many bad rows, of so many, goes on; nothing where none is allowed."""
        if self.most >= 1:
            return f", more than max_bad_rows={self.most:g}"
        return (
            f" of {read} read, more than max_bad_rows={self.most:g} allows ({self.allowed(read)})" if self.most else ""
        )


def max_rows_per_unit(files: Sequence[ScannedFile]) -> dict[int, float]:
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


_SHOWN = 10


class Quarantine(Collection[tuple[str, BadRow]]):
    """(path, row) of every bad row, in the order of the sources and of their rows.

    most: no more than so many of them.
    """

    def __init__(self, plan: Plan, staged: Sequence[StagedUnit], most: int | None = None) -> None:
        self._units = plan.units
        self._staged = staged
        self._pack_length = pack_length_of(plan.config)
        self._most = most

    def __len__(self) -> int:
        count = sum(unit.quarantined for unit in self._staged)
        return count if self._most is None else min(count, self._most)

    def __iter__(self) -> Iterator[tuple[str, BadRow]]:
        """Read them.

        Raises:
            SourceError: a row that fits no pack can no longer be read from its source.
            UnbalancedError: there are not as many as were counted.
        """
        given = 0
        for row in islice(self._all(), self._most):
            given += 1
            yield row
        if given != len(self):
            raise RowAccountingError(f"{len(self)} bad rows were counted, and {given} were kept")

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)

    def _all(self) -> Iterator[tuple[str, BadRow]]:
        for staged in self._staged:
            unit = self._units[staged.number]
            unfit = overflowing_rows(staged, unit, self._pack_length) if self._pack_length is not None else iter(())
            for row in heapq.merge(staged.bad_rows, unfit, key=lambda row: row.number):
                yield unit.file.path, row


def bad_rows_message(
    bad: Quarantine, account: RowCounts, tolerance: BadRowBudget, *, is_whole: bool, where: str
) -> str:
    """The error for too many bad rows: the first of them by `path:row`, and where all of them are.

    Where no row was kept and all fail for one reason, the config is at fault, and one sentence says it.

    Args:
        bad: those that are kept to be looked at.
        account: of all rows that were read.
        tolerance: what was exceeded.
        is_whole: all rows were read; if not, the run was given up.
        where: the file that they are in.
    """
    count = account.quarantined
    first = list(islice(bad, _SHOWN))
    if len(account.reasons) == 1 and count > _SHOWN and not account.kept and is_whole:
        path, row = first[0]
        return (
            f"no row can be used, all {count} of them for one reason: {row.reason} ({path}:{row.number} is the first)"
        )
    head = f"{count}{'' if is_whole else ' or more'} row{'s' if count > 1 else ''} cannot be used"
    lines = [f"{head}{tolerance.exceeded_by(account.read)}:"]
    lines += [f"  {path}:{row.number}: {row.reason}" for path, row in first]
    if count > len(first):
        lines.append(f"  ... and {count - len(first)} more")
    whole = "All of them are" if len(bad) == count else f"The first {len(bad)} of them are"
    if is_whole:
        lines.append(f"{whole} in {where}; mend them, or allow for them with max_bad_rows={count}.")
    else:
        lines.append(f"{whole} in {where}, and the run was given up before all rows were read; mend them first.")
    return "\n".join(lines)
