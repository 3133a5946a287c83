"""Limits a data set to its first rows: units after them are left out, and the last one ends at a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sftkit.core.row_log import UNREADABLE, RowLog
from sftkit.sources.work_units import ScannedFile, WorkUnit, read_unit


def first_rows(files: Iterable[ScannedFile], count: int) -> Iterator[ScannedFile]:
    """Yield the files, with their units, that hold the first `count` rows; files after them are not asked for.

    Rows that cannot be read count, too.

    Raises:
        SourceError: a file cannot be read.
    """
    for file in files:
        units = []
        for unit in file.units:
            numbers = _first_numbers(unit, count)
            count -= len(numbers)
            units.append(unit if count else _ending_at(unit, numbers[-1]))
            if not count:
                break
        yield replace(file, units=tuple(units))
        if not count:
            return


def _first_numbers(unit: WorkUnit, count: int) -> list[int]:
    """Return the numbers of the first rows of a unit of one file, at most `count`."""
    log = RowLog(kind=UNREADABLE)
    good: list[int] = []
    for batch in read_unit(unit, log):
        good += batch.numbers.tolist()
        if len(good) + len(log.bad) >= count:
            break
    return sorted([*good, *(row.number for row in log.bad)])[:count]


def _ending_at(unit: WorkUnit, number: int) -> WorkUnit:
    [only] = unit.parts
    return replace(unit, parts=(replace(only, part=replace(only.part, last_number=number)),))
