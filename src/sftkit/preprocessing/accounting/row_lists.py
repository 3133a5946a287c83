"""The quarantined and the dropped rows of a run, read from disk when needed because they may not fit in memory."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from sftkit.config.reading.interpolated import interpolated_values, replace_values
from sftkit.core.row_log import RemovedRow
from sftkit.ordering.packing import pack_length_of
from sftkit.preprocessing.accounting.row_counts import RowAccountingError
from sftkit.preprocessing.pack_overflow import PACKING, overflowing_rows
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.staging.staged_unit import StagedUnit


class RemovedRows(Collection[tuple[str, RemovedRow]], ABC):
    """Removed rows as (path, row), in the order of the sources and their rows."""

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
        count = sum(map(self._count, self._staged))
        return count if self._limit is None else min(count, self._limit)

    def __iter__(self) -> Iterator[tuple[str, RemovedRow]]:
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
            raise RowAccountingError(f"{len(self)} removed rows were counted, but {found} were stored")

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)

    @abstractmethod
    def _count(self, staged: StagedUnit) -> int:
        """Return the number of removed rows of a unit."""

    @abstractmethod
    def _stored(self, staged: StagedUnit) -> Iterable[RemovedRow]:
        """Return those of them that were removed before the unit was staged."""

    @abstractmethod
    def _overflow_reason(self, staged: StagedUnit, length: int) -> str | None:
        """Return why those were removed that are longer than a pack, with `{size}` for their tokens; None: not so."""

    def _all(self) -> Iterator[tuple[str, RemovedRow]]:
        for staged in self._staged:
            unit = self._units[staged.number]
            reason = None if self._pack_length is None else self._overflow_reason(staged, self._pack_length)
            too_long = iter(()) if reason is None else overflowing_rows(staged, unit, reason)
            for row in heapq.merge(self._stored(staged), too_long, key=lambda row: row.number):
                path, number = unit.locate(row.number, staged.rows_before)
                yield replace_values(path, self._values), replace(row, number=number)


class Quarantine(RemovedRows):
    """The quarantined rows."""

    def _count(self, staged: StagedUnit) -> int:
        return staged.quarantined

    def _stored(self, staged: StagedUnit) -> Iterable[RemovedRow]:
        return staged.bad_rows

    def _overflow_reason(self, staged: StagedUnit, length: int) -> str | None:
        return f"{{size}} tokens, more than pack_length={length}" if staged.overflow_reasons else None


class DroppedRows(RemovedRows):
    """The dropped rows."""

    def _count(self, staged: StagedUnit) -> int:
        return staged.dropped

    def _stored(self, staged: StagedUnit) -> Iterable[RemovedRow]:
        return staged.dropped_rows

    def _overflow_reason(self, staged: StagedUnit, length: int) -> str | None:
        return next(iter(staged.drops.get(PACKING, ())), None)
