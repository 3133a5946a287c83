"""run(plan) -> Manifest: stage the units, order the rows, write the shards. Composition only; the rooms do the work."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from sftkit.accounting import bad_rows_message, empty_message, make_manifest, split_info
from sftkit.config.schema import PreprocessConfig
from sftkit.errors import DataError
from sftkit.execution import Workers
from sftkit.mixing import Indices, Part, order_splits
from sftkit.pipeline import Pipeline, Recipe
from sftkit.planning import Plan
from sftkit.progress import Progress, shown
from sftkit.rows import BadRow, EngineDifferenceError
from sftkit.shards.directory import QUARANTINE_NAME, OutputDirectory
from sftkit.shards.manifest import Manifest, SplitInfo
from sftkit.shards.staging import StagedUnit, unified
from sftkit.shards.writing import Layout, ShardTask, shard_bounds, shard_name, write_shard
from sftkit.shared_tools import tools_like
from sftkit.sources.units import Unit
from sftkit.splits import TRAIN, VALIDATION
from sftkit.timing import Stopwatch

_log = logging.getLogger(__name__)

_BAD_ROWS_GATHERED = 1000
"""So many bad rows over the limit are gathered before the run gives up."""

Quarantined = list[tuple[str, BadRow]]


def is_done(plan: Plan) -> Manifest | None:
    """The manifest of the output directory when it holds exactly what the plan would make, else None."""
    manifest = OutputDirectory(Path(plan.config.output_dir)).manifest()
    return manifest if manifest is not None and manifest.fingerprint == plan.fingerprint else None


def run(plan: Plan, progress: Progress) -> Manifest:
    """Make the shards of a plan; the manifest is written last.

    Raises:
        DataError: too many bad rows, or no rows left.
        OutputError: the output directory cannot be written.
    """
    watch = Stopwatch()
    directory = OutputDirectory(Path(plan.config.output_dir))
    with directory.open(overwrite=plan.config.overwrite) as output, Workers(plan.workers) as workers:
        staged, bad = _stage(plan, workers, progress, output)
        watch.lap("stage")
        processor = plan.config.dataprocessor
        orders = order_splits(_parts(plan, staged), processor.seed, processor.sampling_stopping_strategy)
        layout = layout_of(staged)
        watch.lap("order")
        splits = _write_splits(plan, staged, orders, layout, workers, output, progress)
        watch.lap("write")
        manifest = make_manifest(plan, staged, orders, layout, splits, watch.seconds)
        output.publish(manifest, bad)
    return manifest


@lru_cache(maxsize=1)
def _pipeline(pickled: bytes, identity: tuple[str, str | None] | None) -> Pipeline:
    """One pipeline a process: it is made ready once, however many units the process works on."""
    recipe: Recipe = pickle.loads(pickled)
    return Pipeline(recipe, tools_like(recipe.tools, identity))


def _stage_unit(pickled: bytes, identity: tuple[str, str | None] | None, staging: Path, unit: Unit) -> StagedUnit:
    return _pipeline(pickled, identity).stage(staging, unit)


def _stage(
    plan: Plan, workers: Workers, progress: Progress, output: OutputDirectory
) -> tuple[list[StagedUnit], Quarantined]:
    """Run all units; where a fast engine differs from the reference anywhere, all of them again without it."""
    try:
        return _stage_all(plan, workers, progress, output)
    except EngineDifferenceError as difference:
        _log.warning(
            "the fast %s differs from the reference at %s; the whole run goes to the reference: %r",
            difference.engine,
            difference.place,
            difference.sample,
        )
        return _stage(plan.without(difference.engine), workers, progress, output)


def _stage_all(
    plan: Plan, workers: Workers, progress: Progress, output: OutputDirectory
) -> tuple[list[StagedUnit], Quarantined]:
    """Run all units, largest first so that no straggler is left at the end."""
    units = sorted(plan.units, key=lambda unit: -unit.part.size)
    staged: dict[int, StagedUnit] = {}
    bad: dict[int, Quarantined] = {}
    if plan.workers == 1:
        stage = partial(plan.pipeline.stage, output.staging)
    else:
        made_with = plan.tokenizer
        identity = (made_with.fingerprint, made_with.chat_template_sha256) if made_with is not None else None
        stage = partial(_stage_unit, pickle.dumps(plan.recipe), identity, output.staging)
    with shown(progress, "tokenizing", sum(unit.part.size for unit in units)):
        for unit, result in workers.run(stage, units):
            _log.info(
                "%s: %d rows of %d staged in %.1f s", unit, result.rows, result.read, sum(result.seconds.values())
            )
            staged[unit.number] = result
            bad[unit.number] = [(unit.file.path, row) for row in result.bad]
            progress.advance(unit.part.size, rows=result.rows, tokens=int(result.sizes.sum(dtype=np.int64)))
            if sum(map(len, bad.values())) > plan.config.max_bad_rows + _BAD_ROWS_GATHERED:
                break
    in_order = [row for number in sorted(bad) for row in bad[number]]
    limit = plan.config.max_bad_rows
    if len(in_order) > limit:
        output.keep_quarantine(in_order)
        kept = sum(unit.rows for unit in staged.values())
        raise DataError(bad_rows_message(in_order, kept, limit, str(output.path / QUARANTINE_NAME)))
    return [staged[number] for number in sorted(staged)], in_order


def _parts(plan: Plan, staged: Sequence[StagedUnit]) -> list[Part]:
    """The data sets as mixing sees them; none may be empty."""
    by_number = {unit.number: unit for unit in staged}
    parts = []
    for dataset in plan.recipe.datasets:
        files = [file for file in plan.files if file.file.dataset == dataset.name]
        units = [by_number[unit.number] for file in files for unit in file.units]
        rows = sum(unit.rows for unit in units)
        if not rows:
            raise DataError(empty_message(units, dataset.data_paths[0]))
        parts.append(Part(dataset.name, rows, dataset.sampling, dataset.split, dataset.shuffle))
    return parts


def layout_of(staged: Sequence[StagedUnit]) -> Layout:
    """The columns that all units have in common.

    Raises:
        DataError: some data sets end as tokens and others as text.
    """
    filled = [unit for unit in staged if unit.rows]
    kinds = {unit.text_column for unit in filled}
    if len(kinds) > 1:
        texts = ", ".join(sorted(kind for kind in kinds if kind))
        raise DataError(f"some data sets end as tokens and others as text ({texts}); all must end alike")
    shared = set.intersection(*(set(unit.token_columns) for unit in filled))
    order = [name for name in ("input_ids", "labels") if name in shared]
    return Layout(
        paths=tuple(unit.path for unit in staged),
        rows=tuple(unit.rows for unit in staged),
        token_columns=(*order, *sorted(shared - set(order))),
        text_column=next(iter(kinds)),
        extras=unified([unit.extras for unit in filled]),
    )


def _write_splits(
    plan: Plan,
    staged: Sequence[StagedUnit],
    orders: Mapping[str, Indices],
    layout: Layout,
    workers: Workers,
    output: OutputDirectory,
    progress: Progress,
) -> dict[str, SplitInfo]:
    """Cut each split into shards and write them, in parallel where there is much to write."""
    sizes = np.concatenate([unit.sizes for unit in staged])
    trained = np.concatenate([unit.trained for unit in staged])
    filled = {split: rows for split, rows in orders.items() if len(rows)}
    tasks: list[ShardTask] = []
    for split, rows in filled.items():
        count = _shard_count(plan.config, split)
        bounds = shard_bounds(sizes[rows], count)
        for number, (start, stop) in enumerate(pairwise(bounds)):
            part = rows[start:stop]
            path = output.staging / shard_name(split, number, count)
            tasks.append(ShardTask(path, part, sizes[part], trained[part]))
    written = {}
    with shown(progress, "writing shards", sum(len(task.rows) for task in tasks)):
        for task, shard in workers.run(partial(write_shard, layout), tasks):
            written[task.path.name] = shard
            progress.advance(shard.rows, rows=shard.rows, tokens=shard.tokens)
    return {
        split: split_info(
            rows,
            sizes,
            [written[task.path.name] for task in tasks if task.path.name.startswith(f"{split}-")],
            layout,
        )
        for split, rows in filled.items()
    }


def _shard_count(config: PreprocessConfig, split: str) -> int:
    return {TRAIN: config.num_dataset_shards, VALIDATION: config.num_eval_dataset_shards}[split]
