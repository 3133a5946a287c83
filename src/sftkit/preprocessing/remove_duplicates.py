"""Marks staged rows that repeat another row as dropped: `dataprocessor.deduplicate`.

This happens after staging and before splitting and mixing. So a change of these options needs no new tokenization, and
a row for validation that repeats one for training, or the other way round, is found, too.

In memory are, for every row, its key (16 bytes) or its signature (128 to 252 bytes, by the threshold); and while groups
are made of them, about 60 bytes more for a key and 120 for a signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sftkit.config.reading.interpolated import interpolated_values, replace_values
from sftkit.config.schema.deduplicate_options import NEAR, DeduplicateConfig
from sftkit.core.progress import Progress, progress_stage
from sftkit.core.rows import Mask, Offsets
from sftkit.deduplication.banding import Banding
from sftkit.deduplication.exact_keys import first_of_equal
from sftkit.deduplication.near_groups import first_of_near
from sftkit.errors import ConfigError
from sftkit.execution.runner import Runner
from sftkit.preprocessing.pipeline.row_keys import KeyTask, RowKeyMaker, RowKeys
from sftkit.preprocessing.plan.plan import Plan
from sftkit.preprocessing.stage_units import pipeline_maker
from sftkit.shards.staging.later_removal import LaterRemoval
from sftkit.shards.staging.staged_unit import StagedUnit

DEDUPLICATE = "deduplicate"
"""Name of this step in row counts."""

_KINDS = {False: "duplicate", True: "near duplicate"}


@dataclass(frozen=True)
class _KeptRows:
    """For each removed row of a unit, the row that is kept instead."""

    kind: str
    names: Sequence[str]
    """Paths of all files."""
    files: npt.NDArray[np.int32]
    """The file of each row, as an index into `names`, shape (removed rows,)."""
    numbers: Offsets
    """The number of each row in that file, shape (removed rows,)."""

    def __call__(self, index: int) -> str:
        return f"{self.kind} of {self.names[self.files[index]]}:{self.numbers[index]}"


def check_deduplication(plan: Plan, config: DeduplicateConfig) -> None:
    """Check, before anything is tokenized, that the rows have what is to be compared.

    Raises:
        ConfigError: turns are to be compared where no handler takes any, or a column is in no data set.
    """
    names = [dataset.name for dataset in plan.recipe.datasets]
    if config.needs_turns:
        without = [name for name in names if not plan.pipeline.has_turns(name)]
        if without:
            raise ConfigError(
                f"dataprocessor.deduplicate: compare={config.compared} needs conversations or pairs of input and "
                f"output, which the handlers of dataset {without[0]!r} do not take; set compare to row or trained, or "
                "name columns"
            )
    columns = {
        dataset.rename_columns.get(name, name)
        for dataset in plan.recipe.datasets
        for name in plan.samples[dataset.name].columns
    }
    missing = [name for name in config.columns if name not in columns]
    if missing:
        raise ConfigError(
            f"dataprocessor.deduplicate.columns: no data set has the column {missing[0]!r}; columns there: "
            f"{', '.join(sorted(columns)) or 'none'}"
        )


def remove_duplicates(
    plan: Plan, staged: Sequence[StagedUnit], config: DeduplicateConfig, workers: Runner, progress: Progress
) -> list[StagedUnit]:
    """Mark rows that repeat another one as dropped, and return the units.

    Of equal rows, the first is kept: by the priority of its data set, then in the order of the sources. Rows that a
    step after staging has removed before are not compared.

    Raises:
        SourceError: a source can no longer be read.
    """
    bases = np.cumsum([0, *(unit.rows for unit in staged)])
    keys = _keys_of_rows(plan, staged, config, workers, progress)
    compared = keys.compared
    heads = np.arange(bases[-1])
    for unit, base in zip(staged, bases[:-1].tolist(), strict=True):
        compared[base + unit.rows_removed_later] = False
        if unit.rows_added and (config.columns or config.needs_turns):
            own = slice(base, base + unit.rows)
            heads[own] = base + _first_of_source_row(unit)
            compared[own] &= heads[own] == np.arange(base, base + unit.rows)
    first = _first_of_same(keys.keys, compared, _order(plan, staged, config, bases), config)[heads]
    is_removed = first != heads
    for unit, base in zip(staged, bases[:-1].tolist(), strict=True):
        is_removed[base + unit.rows_removed_later] = False
    removed = np.flatnonzero(is_removed)
    if not len(removed):
        return list(staged)
    files, numbers, names = _places(plan, staged, bases, first[removed])
    kind = _KINDS[config.method == NEAR]
    result: list[StagedUnit] = []
    for unit, (start, stop) in zip(staged, pairwise(np.searchsorted(removed, bases).tolist()), strict=True):
        rows = removed[start:stop] - bases[len(result)]
        kept = _KeptRows(kind, names, files[start:stop], numbers[start:stop])
        removal = LaterRemoval(DEDUPLICATE, rows, f"{kind} of another row", detailed_reason=kept)
        result.append(replace(unit, later_removals=(*unit.later_removals, removal)) if len(rows) else unit)
    return result


def _keys_of_rows(
    plan: Plan, staged: Sequence[StagedUnit], config: DeduplicateConfig, workers: Runner, progress: Progress
) -> RowKeys:
    """Compute the keys of the rows of all units, in their order."""
    filled = [unit for unit in staged if unit.rows]
    tasks = [KeyTask(plan.units[unit.number], unit.path, unit.number_shift) for unit in filled]
    renamed = {dataset.name: dataset.rename_columns for dataset in plan.recipe.datasets}
    make = RowKeyMaker(config, renamed, pipeline_maker(plan, workers))
    found: dict[int, RowKeys] = {}
    with progress_stage(progress, "comparing rows", sum(unit.rows for unit in staged)):
        for task, keys in workers.run(make, tasks):
            found[task.unit.number] = keys
            progress.advance(len(keys.compared), rows=len(keys.compared))
    parts = [found.pop(unit.number) for unit in filled]
    return RowKeys(np.concatenate([each.keys for each in parts]), np.concatenate([each.compared for each in parts]))


def _first_of_source_row(unit: StagedUnit) -> Offsets:
    """Return, for each row of a unit, the first row that is used of those that its source row was split into."""
    numbers = np.array(unit.row_numbers(range(unit.rows)))
    used = np.delete(np.arange(unit.rows), unit.rows_removed_later)
    distinct, first = np.unique(numbers[used], return_index=True)
    heads = np.arange(unit.rows)
    heads[used] = used[first][np.searchsorted(distinct, numbers[used])]
    return heads


def _order(plan: Plan, staged: Sequence[StagedUnit], config: DeduplicateConfig, bases: Offsets) -> Offsets | None:
    """Return all rows in the order of their precedence; None if it is the order that they have."""
    places = [config.priority_of(plan.units[unit.number].file.dataset) for unit in staged]
    if places == sorted(places):
        return None
    units = sorted(range(len(staged)), key=lambda index: places[index])
    return np.concatenate([np.arange(bases[index], bases[index + 1]) for index in units])


def _first_of_same(
    keys: npt.NDArray[np.generic], compared: Mask, order: Offsets | None, config: DeduplicateConfig
) -> Offsets:
    """Return, for each row, the row that is kept instead of it, or the row itself."""
    if order is not None:
        first = _first_of_same(keys[order], compared[order], None, config)
        result = np.empty_like(order)
        result[order] = order[first]
        return result
    if config.method == NEAR:
        return first_of_near(keys.astype(np.uint8, copy=False), compared, Banding.for_threshold(config.similarity))
    return first_of_equal(keys.astype(np.uint64, copy=False), compared)


def _places(
    plan: Plan, staged: Sequence[StagedUnit], bases: Offsets, rows: Offsets
) -> tuple[npt.NDArray[np.int32], Offsets, list[str]]:
    """Find where rows, given by their index among all staged rows, come from.

    Returns:
        The file of each row, the number of each row in its file, and the names of the files.
    """
    values = interpolated_values(plan.config)
    files, numbers = np.empty(len(rows), np.int32), np.empty(len(rows), np.int64)
    names: dict[str, int] = {}
    units = np.searchsorted(bases, rows, side="right") - 1
    for index in np.unique(units).tolist():
        unit, chosen = staged[index], np.flatnonzero(units == index)
        found = unit.row_numbers((rows[chosen] - bases[index]).tolist())
        for place, number in zip(chosen.tolist(), found, strict=True):
            name, numbers[place] = plan.units[unit.number].locate(number, unit.rows_before)
            files[place] = names.setdefault(name, len(names))
    return files, numbers, [replace_values(name, values) for name in names]
