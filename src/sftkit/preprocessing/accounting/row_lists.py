"""The quarantined and the dropped rows of a run, read from disk when needed because they may not fit in memory."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar

from sftkit.config.reading.interpolated import interpolated_values, replace_values
from sftkit.core.accounting.removed_row import RemovedRow
from sftkit.core.row_log import UNREADABLE, RowLog
from sftkit.core.rows import Row
from sftkit.preprocessing.accounting.row_counts import RowAccountingError
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.staging.later_removal import LaterRemoval
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.sources.work_units import WorkUnit, read_unit


class RemovedRows(Collection[tuple[str, RemovedRow]], ABC):
    """Removed rows as (path, row), in the order of the sources and their rows."""

    _is_quarantine: ClassVar[bool]

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
        self._limit = limit

    def __len__(self) -> int:
        count = sum(map(self._count, self._staged))
        return count if self._limit is None else min(count, self._limit)

    def __iter__(self) -> Iterator[tuple[str, RemovedRow]]:
        """Read the rows.

        Raises:
            SourceError: a row that was removed after it was staged can no longer be read from its source.
            RowAccountingError: there are fewer or more rows than were counted.
        """
        found = 0
        for row in islice(self._all(), self._limit):
            found += 1
            yield row
        if found != len(self):
            raise RowAccountingError(f"{len(self)} removed rows were counted, but {found} were stored")

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)

    @abstractmethod
    def _count(self, staged: StagedUnit) -> int:
        """Return the number of removed rows of a unit."""

    @abstractmethod
    def _stored(self, staged: StagedUnit) -> Iterable[RemovedRow]:
        """Return those of them that were removed before the unit was staged."""

    def _all(self) -> Iterator[tuple[str, RemovedRow]]:
        for staged in self._staged:
            unit = self._units[staged.number]
            later = [each for each in staged.later_removals if each.is_quarantine == self._is_quarantine]
            removed = _rows_removed_later(staged, unit, later) if later else iter(())
            for row in heapq.merge(self._stored(staged), removed, key=lambda row: row.number):
                path, number = unit.locate(row.number, staged.rows_before)
                yield replace_values(path, self._values), replace(row, number=number)


class Quarantine(RemovedRows):
    """The quarantined rows."""

    _is_quarantine = True

    def _count(self, staged: StagedUnit) -> int:
        return staged.quarantined

    def _stored(self, staged: StagedUnit) -> Iterable[RemovedRow]:
        return staged.bad_rows


class DroppedRows(RemovedRows):
    """The dropped rows."""

    _is_quarantine = False

    def _count(self, staged: StagedUnit) -> int:
        return staged.dropped

    def _stored(self, staged: StagedUnit) -> Iterable[RemovedRow]:
        return staged.dropped_rows


def _rows_removed_later(staged: StagedUnit, unit: WorkUnit, removals: Sequence[LaterRemoval]) -> Iterator[RemovedRow]:
    """Yield the rows of a unit that steps after staging have removed, in order.

    The source is read again to show the rows as they were, because staged rows are tokens.

    Raises:
        SourceError: the source can no longer be read.
    """
    places = sorted((row, each, index) for each in removals for index, row in enumerate(each.rows.tolist()))
    numbers = staged.row_numbers([row for row, _, _ in places])
    contents = _source_rows(unit, frozenset(numbers))
    found: int = 0
    content: Row | None = None
    for number, (_, removal, index) in zip(numbers, places, strict=True):
        while found < number:  # rows that one row was split into have its number
            found, content = next(contents, (number, None))
        log = RowLog()
        log.quarantine(number, removal.reason_of(index), content)
        yield from log.bad


def _source_rows(unit: WorkUnit, numbers: Collection[int]) -> Iterator[tuple[int, Row | None]]:
    """Yield rows of a source, given by their numbers, in order."""
    for batch in read_unit(unit, RowLog(kind=UNREADABLE, on_bad_rows=lambda *_: None)):
        for number, row in zip(batch.numbers.tolist(), batch.rows, strict=True):
            if number in numbers:
                yield number, row
