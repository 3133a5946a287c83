"""Plan -> staged units: those that an earlier run has left are found, the others are run."""

from __future__ import annotations

import logging
import math
import pickle
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache, partial

import numpy as np

from sftkit.core.progress import Progress, progress_stage
from sftkit.core.row_log import EngineDifferenceError
from sftkit.errors import DataError
from sftkit.execution.runner import Runner
from sftkit.ordering.packing import is_packed
from sftkit.preprocessing.accounting.quarantine import BadRowBudget, max_rows_per_unit
from sftkit.preprocessing.pipeline import Pipeline, StagingTask
from sftkit.preprocessing.planning import Plan
from sftkit.preprocessing.recipe_bundle import RecipeBundle, bundle_recipe, matching_chat_tokenizer, unpack_recipe
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.staging.unit_store import UnitStore
from sftkit.sources.work_units import WorkUnit

_log = logging.getLogger(__name__)

_FOUND_AT_ONCE = 64  # units

EXCESS_BAD_ROWS = 1000
"""So many bad rows over the limit are gathered before a run gives up."""


def stage_units(plan: Plan, workers: Runner, progress: Progress, store: UnitStore) -> list[StagedUnit]:
    """Find or run all units of a plan; where a fast engine differs from the reference anywhere, run all without it.

    Returns:
        The units in their order; not all of them when there are far too many bad rows.

    Raises:
        DataError: rows are to be packed and end as text, or a unit's rows cannot be staged.
        SourceError: a source cannot be read.
    """
    found = _find(plan, workers, progress, store)
    _log.info("%d of %d units found in %s", sum(key in found for key in plan.keys), len(plan.keys), store.path)
    try:
        return _stage(plan, workers, progress, store, found)
    except EngineDifferenceError as difference:
        _log.warning(
            "the fast %s differs from the reference at %s; the whole run goes to the reference: %r",
            difference.engine,
            difference.place,
            difference.sample,
        )
        store.invalidate(plan.keys)  # what the engine has made before cannot be trusted either
        return stage_units(plan.without_engine(difference.engine), workers, progress, store)


def _find(plan: Plan, workers: Runner, progress: Progress, store: UnitStore) -> dict[str, StagedUnit]:
    """The units of a plan that an earlier run has staged. They are hashed where tasks run, some of them a task."""
    present = store.existing_keys(plan.keys)
    parts = [tuple(present[start : start + _FOUND_AT_ONCE]) for start in range(0, len(present), _FOUND_AT_ONCE)]
    found: dict[str, StagedUnit] = {}
    if workers.shares_local_files:
        for part in parts:
            found |= store.load(part)
        return found
    with progress_stage(progress, "checking what is staged", len(present)):
        for part, units in workers.run(store.load, parts):
            found |= units
            progress.advance(len(part))
    return found


def _stage(
    plan: Plan, workers: Runner, progress: Progress, store: UnitStore, found: Mapping[str, StagedUnit]
) -> list[StagedUnit]:
    """Run what was not found, largest first so that no straggler is left at the end; equal units are run once."""
    for unit, key in zip(plan.units, plan.keys, strict=True):
        if key in found:
            _check_packable(plan, unit, found[key])
    staged = dict(found)
    missing = {key: unit for unit, key in reversed(list(zip(plan.units, plan.keys, strict=True))) if key not in found}
    tasks = [StagingTask(unit, key) for key, unit in missing.items()]
    tasks.sort(key=lambda task: (-task.unit.part.size, task.unit.number))
    account = _Account(plan, staged)
    with progress_stage(progress, "tokenizing", sum(task.unit.part.size for task in tasks)):
        for task, result in workers.run(_stage_function(plan, store, workers), tasks):
            _check_packable(plan, task.unit, result)
            _log.info(
                "%s: %d rows of %d staged in %.1f s", task, result.rows, result.rows_read, sum(result.seconds.values())
            )
            staged[task.key] = result
            account.add(task.key, result)
            progress.advance(task.unit.part.size, rows=result.rows, tokens=int(result.sizes.sum(dtype=np.int64)))
            if account.is_hopeless():
                break
    return [
        staged[key].renumbered(
            unit.number, unit.part.first_number, reused=key not in missing or missing[key] is not unit
        )
        for unit, key in zip(plan.units, plan.keys, strict=True)
        if key in staged
    ]


class _Account:
    """Rows read, and bad rows among them, while units are run; equal units count as often as they are there."""

    def __init__(self, plan: Plan, staged: Mapping[str, StagedUnit]) -> None:
        self._tolerance = BadRowBudget(plan.config.max_bad_rows)
        self._units = Counter(plan.keys)
        self._bad = self._read = 0
        most = max_rows_per_unit(plan.files)
        self._to_come: Counter[str] = Counter()
        self._unknown: set[str] = set()
        for unit, key in zip(plan.units, plan.keys, strict=True):
            if most[unit.number] < math.inf:
                self._to_come[key] += int(most[unit.number])
            else:
                self._unknown.add(key)
        self._all_to_come = self._to_come.total()
        for key, result in staged.items():
            self.add(key, result)

    def add(self, key: str, unit: StagedUnit) -> None:
        """Count a unit that is staged."""
        self._bad += unit.quarantined * self._units[key]
        self._read += unit.rows_read * self._units[key]
        self._all_to_come -= self._to_come.pop(key, 0)
        self._unknown.discard(key)

    def is_hopeless(self) -> bool:
        """Whether bad rows are far too many, however many good ones may still come."""
        most = math.inf if self._unknown else self._read + self._all_to_come
        return self._bad > self._tolerance.allowed(most) + EXCESS_BAD_ROWS


def _check_packable(plan: Plan, unit: WorkUnit, staged: StagedUnit) -> None:
    if is_packed(plan.config) and staged.text_column is not None:
        raise DataError(
            f"{unit.file.path}: its rows end as text ({staged.text_column!r}), which cannot be packed; "
            "give a response_template, or say train_on=all for a loss on every token"
        )


@lru_cache(maxsize=1)
def _pipeline(pickled: bytes, identity: tuple[str, str | None] | None) -> Pipeline:
    """One pipeline a process: it is made ready once, however many units the process works on."""
    bundle: RecipeBundle = pickle.loads(pickled)
    recipe = unpack_recipe(bundle)
    return Pipeline(recipe, matching_chat_tokenizer(recipe.chat_tokenizer, identity))


def _stage_unit(
    pickled: bytes, identity: tuple[str, str | None] | None, store: UnitStore, task: StagingTask
) -> StagedUnit:
    return _pipeline(pickled, identity).stage(store, task)


def _stage_function(plan: Plan, store: UnitStore, workers: Runner) -> partial[StagedUnit]:
    """What runs a unit: the plan's own pipeline, or that of a worker process."""
    if workers.runs_in_process:
        return partial(plan.pipeline.stage, store)
    made_with = plan.tokenizer
    identity = (made_with.fingerprint, made_with.chat_template_sha256) if made_with is not None else None
    bundle = RecipeBundle(plan.recipe, {}) if workers.shares_local_files else bundle_recipe(plan.recipe)
    return partial(_stage_unit, pickle.dumps(bundle), identity, store)
