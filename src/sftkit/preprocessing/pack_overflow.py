"""Applies `overflow` to rows that are longer than a pack: they are cut, dropped or quarantined.

This concerns packing strategies that keep rows whole. It happens after staging and before splitting and mixing, so
that another pack length needs no new tokenization.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sftkit.config.commands import PreprocessConfig
from sftkit.core.row_log import UNREADABLE, BadRow, RowLog
from sftkit.core.rows import IGNORE_INDEX, LABELS, Offsets, Row
from sftkit.execution.runner import Runner
from sftkit.ordering.packing import keeps_rows_whole, pack_length_of
from sftkit.preprocessing.pipeline.finalize import NO_TRAINED_TOKEN
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.writing.row_gatherer import open_unit_reader
from sftkit.sources.work_units import WorkUnit, read_unit
from sftkit.storage.paths import AnyPath

_log = logging.getLogger(__name__)

_TOKENS_AT_ONCE = 4 << 20

PACKING = "packing"
"""Name of this step in row counts."""


def apply_pack_overflow(staged: Sequence[StagedUnit], config: PreprocessConfig, runner: Runner) -> list[StagedUnit]:
    """Mark the rows that are longer than a pack as dropped or quarantined, and return the units.

    With overflow=truncate, rows are cut when they are written; here, those without a trained token in what is left are
    dropped.
    """
    length = pack_length_of(config)
    if length is None or not keeps_rows_whole(config.packing):
        return list(staged)
    result: list[StagedUnit] = []
    cut = 0
    untrained = _untrained_rows(staged, length, runner) if config.overflow == "truncate" else {}
    for each in staged:
        long = np.flatnonzero(each.sizes > length)
        if not len(long):
            result.append(each)
        elif config.overflow == "drop":
            result.append(_drop_rows(each, long, f"longer than pack_length={length}"))
        elif config.overflow == "error":
            result.append(
                replace(
                    each, overflow_rows=long, overflow_reasons={f"more tokens than pack_length={length}": len(long)}
                )
            )
        else:
            lost = untrained[each.number]
            result.append(_drop_rows(each, lost, NO_TRAINED_TOKEN))
            cut += len(long) - len(lost)
    if cut:
        _log.warning("%d rows are longer than pack_length=%d and are cut there (overflow=truncate)", cut, length)
    return result


def overflowing_rows(staged: StagedUnit, unit: WorkUnit, length: int) -> Iterator[BadRow]:
    """Yield the rows of a unit that are quarantined because they are longer than a pack, in order.

    The source is read again to show the rows as they were, because staged rows are tokens.

    Raises:
        SourceError: the source can no longer be read.
    """
    if not staged.overflow_reasons:
        return
    numbers = staged.row_numbers(staged.overflow_rows.tolist())
    contents = _source_rows(unit, frozenset(numbers))
    found, content = next(contents, (0, None))
    for number, size in zip(numbers, staged.sizes[staged.overflow_rows].tolist(), strict=True):
        log = RowLog()
        log.quarantine(number, f"{size} tokens, more than pack_length={length}", content if found == number else None)
        yield from log.bad
        if found == number:
            found, content = next(contents, (0, None))


def _drop_rows(staged: StagedUnit, rows: Offsets, reason: str) -> StagedUnit:
    if not len(rows):
        return staged
    return replace(staged, overflow_rows=rows, drops={**staged.drops, PACKING: {reason: len(rows)}})


def _source_rows(unit: WorkUnit, numbers: Collection[int]) -> Iterator[tuple[int, Row | None]]:
    """Yield rows of a source, given by their numbers, in order."""
    for batch in read_unit(unit, RowLog(kind=UNREADABLE, on_bad_rows=lambda *_: None)):
        for number, row in zip(batch.numbers.tolist(), batch.rows, strict=True):
            if number in numbers:
                yield number, row


@dataclass(frozen=True)
class _LongRows:
    """The rows of a staged unit that are longer than a pack."""

    number: int
    path: AnyPath
    rows: Offsets

    def __str__(self) -> str:
        return f"{self.path} ({len(self.rows)} long rows)"


def _untrained_rows(staged: Sequence[StagedUnit], length: int, runner: Runner) -> dict[int, Offsets]:
    """Find, for each unit number, the rows that have no trained token once they are cut to a length."""
    tasks = [_LongRows(each.number, each.path, np.flatnonzero(each.sizes > length)) for each in staged]
    found = runner.run(partial(_rows_without_loss, length), [task for task in tasks if len(task.rows)])
    return {task.number: rows for task, rows in found}


def _rows_without_loss(length: int, long: _LongRows) -> Offsets:
    """Return the rows without a trained token, other than the first token, once they are cut to a length."""
    rows = long.rows
    reader = open_unit_reader(long.path, (LABELS,))
    places, _ = reader.locate(LABELS, rows)
    kept = np.zeros(len(rows), np.bool_)
    at_once = max(1, _TOKENS_AT_ONCE // length)
    labels = np.empty((min(at_once, len(rows)), length), np.int32)
    for start in range(0, len(rows), at_once):
        some = places[start : start + at_once].tolist()
        reader.read(zip(some, labels, strict=False))
        kept[start : start + len(some)] = (labels[: len(some), 1:] != IGNORE_INDEX).any(axis=1)
    return rows[~kept]
