"""Applies `overflow` to rows that are longer than a pack: they are cut, dropped or quarantined.

This concerns packing strategies that keep rows whole. It happens after staging and before splitting and mixing, so
that another pack length needs no new tokenization.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise

import numpy as np

from sftkit.config.commands import PreprocessConfig
from sftkit.core.accounting.cuts import (
    LongRows,
    cut_after_answer,
    cut_before_answer,
    find_long_rows,
    find_long_rows_at_end,
)
from sftkit.core.row_log import UNREADABLE, RemovedRow, RowLog
from sftkit.core.rows import LABELS, Offsets, Ragged, Row
from sftkit.execution.runner import Runner
from sftkit.ordering.packing import keeps_rows_whole, pack_length_of
from sftkit.shards.staging.staged_unit import Int32Array, StagedUnit
from sftkit.shards.writing.row_gatherer import open_unit_reader
from sftkit.sources.work_units import WorkUnit, read_unit
from sftkit.storage.paths import AnyPath

_TOKENS_AT_ONCE = 4 << 20

_CUTS: Mapping[str, tuple[Callable[[Ragged, int], LongRows], Callable[[int], str]]] = {
    "truncate": (find_long_rows, cut_before_answer),
    "truncate_left": (find_long_rows_at_end, cut_after_answer),
}
"""By `overflow`: what a cut at the length of a pack loses, and why rows without a trained token are dropped then."""

PACKING = "packing"
"""Name of this step in row counts."""


def apply_pack_overflow(staged: Sequence[StagedUnit], config: PreprocessConfig, runner: Runner) -> list[StagedUnit]:
    """Mark the rows that are longer than a pack as dropped or quarantined, and return the units.

    With overflow=truncate and truncate_left, rows are cut when they are written; here, what is cut off is counted, and
    rows without a trained token in what is left are dropped.
    """
    length = pack_length_of(config)
    if length is None or not keeps_rows_whole(config.packing):
        return list(staged)
    result: list[StagedUnit] = []
    cut_by = _CUTS.get(config.overflow)
    long_rows = _find_long_rows(staged, length, runner, cut_by[0]) if cut_by is not None else {}
    for each in staged:
        long = np.flatnonzero(each.sizes > length)
        if not len(long):
            result.append(each)
        elif cut_by is not None:
            cut = long_rows[each.number]
            lost = cut.rows[cut.trained_left == 0]
            result.append(_drop_rows(replace(each, overflow_cuts=cut), lost, cut_by[1](length)))
        elif config.overflow == "drop":
            result.append(_drop_rows(each, long, f"longer than pack_length={length}"))
        else:
            result.append(
                replace(
                    each, overflow_rows=long, overflow_reasons={f"more tokens than pack_length={length}": len(long)}
                )
            )
    return result


def overflowing_rows(staged: StagedUnit, unit: WorkUnit, reason: str) -> Iterator[RemovedRow]:
    """Yield the rows of a unit that are removed because they are longer than a pack, in order.

    The source is read again to show the rows as they were, because staged rows are tokens.

    Args:
        staged: the staged unit.
        unit: its source.
        reason: why the rows are removed; `{size}` in it stands for the tokens of a row.

    Raises:
        SourceError: the source can no longer be read.
    """
    numbers = staged.row_numbers(staged.overflow_rows.tolist())
    contents = _source_rows(unit, frozenset(numbers))
    found, content = next(contents, (0, None))
    for number, size in zip(numbers, staged.sizes[staged.overflow_rows].tolist(), strict=True):
        log = RowLog()
        log.quarantine(number, reason.format(size=size), content if found == number else None)
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
class _LongRowsTask:
    """The rows of a staged unit that are longer than a pack."""

    number: int
    path: AnyPath
    rows: Offsets
    sizes: Int32Array
    """Tokens of each of them."""

    def __str__(self) -> str:
        return f"{self.path} ({len(self.rows)} long rows)"


def _find_long_rows(
    staged: Sequence[StagedUnit], length: int, runner: Runner, find: Callable[[Ragged, int], LongRows]
) -> dict[int, LongRows]:
    """Count, for each unit number, what is lost of the rows that are longer than a pack if they are cut there."""
    found = [(each, np.flatnonzero(each.sizes > length)) for each in staged]
    tasks = [_LongRowsTask(each.number, each.path, rows, each.sizes[rows]) for each, rows in found if len(rows)]
    return {task.number: cut for task, cut in runner.run(partial(_read_long_rows, length, find), tasks)}


def _read_long_rows(length: int, find: Callable[[Ragged, int], LongRows], task: _LongRowsTask) -> LongRows:
    """Read the labels of long rows, some rows at a time, and count what is lost of each."""
    reader = open_unit_reader(task.path, (LABELS,))
    places, _ = reader.locate(LABELS, task.rows)
    groups = np.cumsum(task.sizes, dtype=np.int64) // _TOKENS_AT_ONCE
    parts = []
    for start, stop in pairwise([0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(task.rows)]):
        labels = [np.empty(size, np.int32) for size in task.sizes[start:stop].tolist()]
        reader.read(zip(places[start:stop].tolist(), labels, strict=True))
        parts.append(find(Ragged.from_lists(labels), length))
    columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(LongRows)}
    return LongRows(**{**columns, "rows": task.rows})
