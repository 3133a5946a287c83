"""Applies `overflow` to rows that are longer than a pack: they are cut, dropped or quarantined.

This concerns packing strategies that keep rows whole. It happens after staging and before splitting and mixing, so
that another pack length needs no new tokenization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from sftkit.core.rows import LABELS, Offsets, Ragged
from sftkit.execution.runner import Runner
from sftkit.ordering.packing import keeps_rows_whole, pack_length_of
from sftkit.shards.staging.later_removal import LaterRemoval
from sftkit.shards.staging.staged_unit import Int32Array, StagedUnit
from sftkit.shards.writing.row_gatherer import open_unit_reader
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
            result.append(_remove(replace(each, overflow_cuts=cut), LaterRemoval(PACKING, lost, cut_by[1](length))))
        elif config.overflow == "drop":
            result.append(_remove(each, LaterRemoval(PACKING, long, f"longer than pack_length={length}")))
        else:
            why = f"more tokens than pack_length={length}"
            detailed = partial(_with_size, each.sizes[long], f"more than pack_length={length}")
            result.append(_remove(each, LaterRemoval(PACKING, long, why, is_quarantine=True, detailed_reason=detailed)))
    return result


def _with_size(sizes: Int32Array, reason: str, index: int) -> str:
    return f"{sizes[index]} tokens, {reason}"


def _remove(staged: StagedUnit, removal: LaterRemoval) -> StagedUnit:
    return replace(staged, later_removals=(*staged.later_removals, removal)) if len(removal.rows) else staged


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
