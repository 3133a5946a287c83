"""Tokenizes the work units of a plan, and reuses those that an earlier run has staged."""

from __future__ import annotations

import logging
import math
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import numpy as np

from sftkit.core.progress import Done, Progress, Report, TaskProgress, progress_stage
from sftkit.core.row_log import EngineDifferenceError
from sftkit.errors import DataError
from sftkit.execution.runner import Runner
from sftkit.ordering.packing import is_packed
from sftkit.preprocessing.accounting.row_budget import EXCESS_ROWS, budgets_of, max_rows_per_unit
from sftkit.preprocessing.pipeline.unit_pipeline import Pipeline, StagingTask
from sftkit.preprocessing.plan.plan import Plan
from sftkit.preprocessing.recipe_bundle import RecipeBundle, bundle_recipe, matching_chat_tokenizer, unpack_recipe
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.staging.unit_store import UnitStore
from sftkit.sources.work_units import WorkUnit
from sftkit.tokenization.loading.tokenizer_identity import TokenizerIdentity

_log = logging.getLogger(__name__)

_UNITS_PER_CHECK = 64

PipelineMaker = Callable[[], Pipeline]


def stage_units(plan: Plan, workers: Runner, progress: Progress, store: UnitStore) -> list[StagedUnit]:
    """Reuse or run all units of a plan. If a fast engine differs from the reference on any row, rerun all without it.

    Returns:
        The staged units in their order; not all of them if there are far too many bad or dropped rows.

    Raises:
        DataError: rows are text although they are to be packed, or the rows of a unit cannot be stored.
        SourceError: a source cannot be read.
    """
    found = _find_staged(plan, workers, progress, store)
    _log.info("%d of %d work units are in %s", sum(key in found for key in plan.keys), len(plan.keys), store.path)
    try:
        return _stage_missing(plan, workers, progress, store, found)
    except EngineDifferenceError as difference:
        _log.warning(
            "the fast %s differs from the reference at %s; the whole run uses the reference: %r",
            difference.engine,
            difference.place,
            difference.sample,
        )
        store.invalidate(plan.keys)  # earlier results of that engine cannot be trusted either
        return stage_units(plan.without_engine(difference.engine), workers, progress, store)


def _find_staged(plan: Plan, workers: Runner, progress: Progress, store: UnitStore) -> dict[str, StagedUnit]:
    """Find the units of a plan that an earlier run has staged. Their files are hashed where the tasks run."""
    existing = store.existing_keys(plan.keys)
    parts = [tuple(existing[start : start + _UNITS_PER_CHECK]) for start in range(0, len(existing), _UNITS_PER_CHECK)]
    found: dict[str, StagedUnit] = {}
    if workers.shares_local_files:
        for part in parts:
            found |= store.load(part)
        return found
    with progress_stage(progress, "checking staged units", len(existing)):
        for part, units in workers.run(store.load, parts):
            found |= units
            progress.advance(len(part))
    return found


def _stage_missing(
    plan: Plan, workers: Runner, progress: Progress, store: UnitStore, found: Mapping[str, StagedUnit]
) -> list[StagedUnit]:
    """Run the units that were not found, each key once, and the largest first so that all workers end together."""
    for unit, key in zip(plan.units, plan.keys, strict=True):
        if key in found:
            _check_packable(plan, unit, found[key])
    staged = dict(found)
    missing = {key: unit for unit, key in reversed(list(zip(plan.units, plan.keys, strict=True))) if key not in found}
    tasks = [StagingTask(unit, key) for key, unit in missing.items()]
    tasks.sort(key=lambda task: (-task.unit.size, task.unit.number))
    counter = _RemovedRowCounter(plan, staged)
    stage = partial(_stage_unit, pipeline_maker(plan, workers), store)
    shown = TaskProgress(progress)

    def show(task: StagingTask, done: Done) -> None:
        shown.report(task.key, done, task.unit.size)

    with progress_stage(progress, "tokenizing", sum(task.unit.size for task in tasks)):
        for task, result in workers.run_reporting(stage, tasks, show):
            _check_packable(plan, task.unit, result)
            seconds = sum(result.seconds.values())
            _log.info("%s: %d of %d rows tokenized in %.1f s", task, result.rows, result.rows_read, seconds)
            staged[task.key] = result
            counter.add(task.key, result)
            shown.finish(task.key, Done(task.unit.size, result.rows, int(result.sizes.sum(dtype=np.int64))))
            if counter.is_hopeless():
                break
    return [
        staged[key].renumbered(unit.number, unit.first_number, reused=key not in missing or missing[key] is not unit)
        for unit, key in zip(plan.units, plan.keys, strict=True)
        if key in staged
    ]


class _RemovedRowCounter:
    """Counts bad and dropped rows while units are run, to stop a run that is bound to fail.

    Equal units count once for each.
    """

    def __init__(self, plan: Plan, staged: Mapping[str, StagedUnit]) -> None:
        self._budgets = budgets_of(plan.config)
        self._units = Counter(plan.keys)
        self._bad = self._dropped = self._read = 0
        max_rows = max_rows_per_unit(plan.units)
        self._max_missing: Counter[str] = Counter()
        self._unbounded: set[str] = set()
        for unit, key in zip(plan.units, plan.keys, strict=True):
            if max_rows[unit.number] < math.inf:
                self._max_missing[key] += int(max_rows[unit.number])
            else:
                self._unbounded.add(key)
        self._max_missing_total = self._max_missing.total()
        for key, result in staged.items():
            self.add(key, result)

    def add(self, key: str, unit: StagedUnit) -> None:
        """Count a staged unit."""
        self._bad += unit.quarantined * self._units[key]
        self._dropped += unit.dropped * self._units[key]
        self._read += unit.rows_read * self._units[key]
        self._max_missing_total -= self._max_missing.pop(key, 0)
        self._unbounded.discard(key)

    def is_hopeless(self) -> bool:
        """Whether there are far too many bad or dropped rows, even if all other rows are good."""
        most = math.inf if self._unbounded else self._read + self._max_missing_total
        counts = zip(self._budgets, (self._bad, self._dropped), strict=True)
        return any(count > budget.allowed(most) + EXCESS_ROWS for budget, count in counts)


def _check_packable(plan: Plan, unit: WorkUnit, staged: StagedUnit) -> None:
    if is_packed(plan.config) and staged.text_column is not None:
        raise DataError(
            f"{unit.file.path}: its rows are text ({staged.text_column!r}), which cannot be packed; set "
            "response_template, or set train_on=all to train on every token"
        )


@lru_cache(maxsize=1)
def _pipeline(pickled: bytes, identity: TokenizerIdentity | None) -> Pipeline:
    """Make the pipeline of this process, which runs all its units."""
    bundle: RecipeBundle = pickle.loads(pickled)
    recipe = unpack_recipe(bundle)
    return Pipeline(recipe, matching_chat_tokenizer(recipe.chat_tokenizer, identity))


def _stage_unit(pipeline: PipelineMaker, store: UnitStore, task: StagingTask, report: Report) -> StagedUnit:
    return pipeline().stage(store, task, report)


def pipeline_maker(plan: Plan, workers: Runner) -> PipelineMaker:
    """Return what gives tasks their pipeline: that of the plan, or the one of a worker process."""
    if workers.runs_in_process:
        return lambda: plan.pipeline
    identity = plan.pipeline.chat_tokenizer.identity if plan.tokenizer is not None else None
    bundle = RecipeBundle(plan.recipe, {}) if workers.shares_local_files else bundle_recipe(plan.recipe)
    return partial(_pipeline, pickle.dumps(bundle), identity)
