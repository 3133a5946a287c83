"""Runs a plan: tokenizes the work units, orders the rows, writes the shards and the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np

from sftkit.config.commands import PreprocessConfig
from sftkit.core.progress import Done, Progress, Stopwatch, TaskProgress, progress_stage
from sftkit.core.splits import TRAIN
from sftkit.core.weights.loss_weight_column import refuses_weights
from sftkit.execution.ray_cluster import RayCluster
from sftkit.execution.runner import Runner
from sftkit.execution.worker_pool import WorkerPool
from sftkit.ordering.packing import is_packed, keeps_order, make_packs, pack_length_of
from sftkit.ordering.splitting import Indices
from sftkit.preprocessing.accounting.budget_checks import check_budgets, check_finished
from sftkit.preprocessing.accounting.column_report import check_staged
from sftkit.preprocessing.accounting.manifest_builder import make_manifest, split_info
from sftkit.preprocessing.accounting.mix_counts import count_sources
from sftkit.preprocessing.accounting.row_counts import check_row_accounting, check_rows_left
from sftkit.preprocessing.accounting.row_lists import DroppedRows, Quarantine
from sftkit.preprocessing.appending.addition import Addition
from sftkit.preprocessing.appending.joined_manifest import JoinedRows, join_manifests
from sftkit.preprocessing.order_rows import OrderedRows, order_rows
from sftkit.preprocessing.pack_overflow import apply_pack_overflow
from sftkit.preprocessing.plan.plan import Plan
from sftkit.preprocessing.plan.template_date import record_template_date
from sftkit.preprocessing.remove_duplicates import remove_duplicates
from sftkit.preprocessing.shard_columns import check_same_columns, shard_columns_of, with_sources, with_trainer
from sftkit.preprocessing.stage_units import stage_units
from sftkit.shards.formats.output_formats import PARQUET, make_formats
from sftkit.shards.manifest import Manifest
from sftkit.shards.output.base_output import Output
from sftkit.shards.output.local_output import LocalOutput
from sftkit.shards.output.remote_output import RemoteOutput
from sftkit.shards.staging.staged_unit import Int32Array, StagedUnit
from sftkit.shards.staging.unit_record import are_unchanged
from sftkit.shards.writing.row_gatherer import SequenceSelection, concatenate_sequences
from sftkit.shards.writing.shard_format import FormatOptions, ShardPlace
from sftkit.shards.writing.shard_writer import (
    ShardTask,
    ShardWriter,
    WrittenShard,
    shard_bounds,
    write_indexes,
)
from sftkit.storage.dataset_files import DROPPED_NAME, QUARANTINE_NAME
from sftkit.storage.paths import RemotePath, parse_path


def find_finished(plan: Plan) -> Manifest | None:
    """Return the manifest in the output directory if the directory holds exactly what the plan would make, else None.

    Raises:
        DataError: the directory holds it, but with more bad or dropped rows than the plan allows.
    """
    directory = output_for(plan.config)
    manifest = _manifest_of_plan(plan, directory)
    if manifest is None or not directory.contains(manifest) or not are_unchanged(manifest.function_inputs):
        return None
    if not _has_list_of(plan.config, manifest) or refuses_weights(manifest.quarantined_by_reason):
        return None
    check_finished(plan.config, manifest, directory)
    return manifest


def _has_list_of(config: PreprocessConfig, manifest: Manifest) -> bool:
    """Return whether a data set lists as many dropped rows as a config asks for; older ones stay without a list."""
    dropped, kept = sum(manifest.dropped.values()), manifest.config.get("keep_dropped")
    return kept is None or min(kept, dropped) == min(config.keep_dropped, dropped)


def _manifest_of_plan(plan: Plan, directory: Output[Any]) -> Manifest | None:
    manifest = directory.manifest()
    return manifest if manifest is not None and manifest.fingerprint == plan.fingerprint else None


def run(plan: Plan, progress: Progress, runner: Runner | None = None, addition: Addition | None = None) -> Manifest:
    """Make the shards that a plan describes.

    1. Tokenize: each work unit runs through the `Pipeline`, in parallel, and its rows become a staged unit on disk.
       Staged units of earlier runs are reused.
    2. Deduplicate, if the config asks for it: compute a key of every staged row, in parallel, and mark rows that repeat
       another one as dropped.
    3. Order: from the row counts alone, decide which rows go to which split, in which order.
    4. Write: pack the rows of each split if asked for, cut them into shards of equal size, and copy them from the
       staged units, in parallel.
    5. Publish: check that every row is accounted for, then write the lists of quarantined and dropped rows and, last,
       the manifest.

    An interrupted run can be repeated: it reuses the staged units and produces the same bytes.

    Args:
        plan: made by `sftkit.preprocessing.planning.plan`.
        progress: shows the progress.
        runner: runs the tasks; by default processes of this machine, as many as the plan says.
        addition: the data set that the shards are added to, whose plan this is; None to make or replace a data set.

    Returns:
        The manifest of the published data set.

    Raises:
        DataError: too many bad or dropped rows, no rows left, or rows that cannot be packed.
        OutputError: the output directory or the staging directory cannot be written.
        RowAccountingError: rows were lost or repeated, which is a bug; nothing is published.
    """
    watch = Stopwatch()
    config = plan.config
    directory = output_for(config)
    is_damaged = _manifest_of_plan(plan, directory) is not None  # shards are missing, so replacing them loses nothing
    with (
        directory.open(overwrite=config.overwrite or is_damaged or addition is not None) as output,
        nullcontext(runner) if runner is not None else WorkerPool(plan.workers) as workers,
    ):
        record_template_date(plan, output)
        staged = stage_units(plan, workers, progress, output.units)
        check_budgets(plan, staged, output)
        check_staged(plan, staged)
        staged = apply_pack_overflow(staged, config, workers)
        check_budgets(plan, staged, output)
        watch.lap("stage")
        if config.dataprocessor.deduplicate is not None:
            staged = remove_duplicates(plan, staged, config.dataprocessor.deduplicate, workers, progress)
            check_budgets(plan, staged, output)
            watch.lap("deduplicate")
        check_rows_left(plan, staged)
        ordered = order_rows(plan, staged, workers)
        layout = shard_columns_of(staged, is_packed=is_packed(config))
        layout = with_trainer(plan, with_sources(plan, staged, layout))
        if addition is not None:
            check_same_columns(addition.base, layout, output.path)
        watch.lap("order")
        sequences = _sequences_of_splits(plan, staged, ordered)
        formats = make_formats(config.output_format, layout, _format_options(plan))
        shards = _write_splits(plan, sequences, ShardWriter(layout, formats), workers, output, progress)
        splits = {
            split: split_info(each, shards[split], layout, pack_length_of(config)) for split, each in sequences.items()
        }
        files = write_indexes(output.shard_folder, formats, sequences, shards)
        watch.lap("write")
        mix = count_sources(plan, staged, ordered, sequences)
        manifest = make_manifest(plan, staged, ordered.splits, mix, layout, splits, files, watch.seconds)
        return _publish(plan, staged, output, manifest, addition)


def _publish(
    plan: Plan, staged: Sequence[StagedUnit], output: Output[Any], manifest: Manifest, addition: Addition | None
) -> Manifest:
    """Check that every row is accounted for, and publish the shards, alone or beside those that they are added to."""
    check_row_accounting(manifest)
    kept, quarantine = plan.config.keep_dropped, Quarantine(plan, staged)
    if addition is None:
        lists = {QUARANTINE_NAME: quarantine, DROPPED_NAME: DroppedRows(plan, staged, kept)}
        return output.publish(manifest, lists, plan.keys)
    base, joined = addition.base, join_manifests(addition, manifest)
    check_row_accounting(joined)
    listed = min(kept, sum(base.dropped.values()))
    joined_lists = {
        QUARANTINE_NAME: JoinedRows(output.path / QUARANTINE_NAME, base.quarantined, quarantine),
        DROPPED_NAME: JoinedRows(output.path / DROPPED_NAME, listed, DroppedRows(plan, staged, kept - listed)),
    }
    return output.publish_beside(joined, joined_lists, plan.keys)


def open_cluster(config: PreprocessConfig) -> AbstractContextManager[Runner | None]:
    """Connect to the cluster that the config names, in a `with` block; None if this machine runs the tasks.

    Raises:
        ConfigError: (when the block is entered) the cluster cannot be reached.
    """
    return nullcontext() if config.executor == "local" else RayCluster(config.ray_address, config.num_workers)


def output_for(config: PreprocessConfig) -> Output[Any]:
    """Return the output directory of a config, local or remote."""
    options = config.storage_options
    staging = None if config.staging_dir is None else parse_path(config.staging_dir, options)
    path = parse_path(config.output_dir, options)
    folders = tuple(name for name in config.output_format if name != PARQUET)
    if isinstance(path, RemotePath):
        return RemoteOutput(path, staging, keep_staging=config.keep_staging, folders=folders)
    return LocalOutput(path, staging, keep_staging=config.keep_staging, folders=folders)


def _format_options(plan: Plan) -> FormatOptions:
    eos_token_id = None if plan.tokenizer is None else plan.tokenizer.eos_token_id
    return FormatOptions(eos_token_id, plan.config.pad_seq_to_multiple, pack_length_of(plan.config))


def _sequences_of_splits(
    plan: Plan, staged: Sequence[StagedUnit], ordered: OrderedRows
) -> dict[str, SequenceSelection]:
    """Pack the rows of each split if asked for. Splits without rows are left out."""
    sizes = np.concatenate([unit.sizes for unit in staged])
    found = {}
    for split, rows in ordered.splits.items():
        if len(rows):
            ends = ordered.stage_ends if split == TRAIN and ordered.stage_ends else (len(rows),)
            stages = [rows[start:stop] for start, stop in pairwise((0, *ends)) if stop > start]
            parts = [_sequences(plan.config, split, each, sizes, number) for number, each in enumerate(stages)]
            found[split] = concatenate_sequences(parts)
    return found


def _write_splits(
    plan: Plan,
    sequences: Mapping[str, SequenceSelection],
    writer: ShardWriter,
    workers: Runner,
    output: Output[Any],
    progress: Progress,
) -> dict[str, list[WrittenShard]]:
    """Cut each split into shards, and write the shards in parallel; return those of each split, in row order."""
    names = {split: plan.shard_names(split) for split in sequences}
    bounds = {
        split: shard_bounds(each.row_sizes, len(names[split]), _unit_of(each)) for split, each in sequences.items()
    }
    tasks = {
        split: [
            ShardTask(ShardPlace(output.shard_folder, split, name), each.slice(*part))
            for name, part in zip(names[split], pairwise(bounds[split]), strict=True)
        ]
        for split, each in sequences.items()
    }
    all_tasks = [task for split in tasks.values() for task in split]
    written: dict[str, WrittenShard] = {}
    shown = TaskProgress(progress)

    def show(task: ShardTask, done: Done) -> None:
        shown.report(str(task), done, len(task.sequences))

    with progress_stage(progress, "writing shards", sum(len(task.sequences) for task in all_tasks)):
        for task, shard in workers.run_reporting(writer, all_tasks, show):
            written[str(task)] = shard
            shown.finish(str(task), Done(len(task.sequences), shard.rows, shard.tokens))
    return {split: [written[str(task)] for task in tasks[split]] for split in sequences}


def _sequences(config: PreprocessConfig, split: str, rows: Indices, sizes: Int32Array, stage: int) -> SequenceSelection:
    """Return the rows, or packs, of a split, or of one of its stages, in order.

    Packs to train on are shuffled where packing has sorted them by the lengths of their rows.
    """
    if not is_packed(config):
        return SequenceSelection(rows, sizes[rows])
    packs = make_packs(sizes[rows], config, config.pad_seq_to_multiple)
    if split == TRAIN and not keeps_order(config):
        seed = config.dataprocessor.seed
        packs = packs.take(np.random.default_rng([seed, stage] if stage else seed).permutation(len(packs)))
    return SequenceSelection(rows[packs.rows], packs.lengths, packs.starts, packs.offsets)


def _unit_of(sequences: SequenceSelection) -> str:
    return "rows" if sequences.pack_offsets is None else "packs"
