"""Plan a run: what it would do and cost, without loading weights and without writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError
from sftkit.shards.reading import ShardSet
from sftkit.training.arguments.checks.setting_conflicts import use_one_gpu
from sftkit.training.data.feed import rows_per_micro_batch
from sftkit.training.distributed import uses_deepspeed
from sftkit.training.metrics.hardware import peak_flops
from sftkit.training.mixed_precision import mixed_precision
from sftkit.training.models.run_tokenizer import load_run_tokenizer
from sftkit.training.planning.learning_rate import RateSchedule, rate_schedule
from sftkit.training.planning.memory.memory_use import MemoryPlan
from sftkit.training.planning.memory.plan_memory import plan_memory
from sftkit.training.planning.outline import OutlinedModel, outline
from sftkit.training.planning.steps import Points, checkpoint_points, evaluation_points
from sftkit.training.planning.work import EpochWork, measure_epoch
from sftkit.training.setup.data_setup import make_feed
from sftkit.training.step_counts import StepCounts, count_steps

if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass(frozen=True)
class BatchPlan:
    """How the rows of a run are divided."""

    rows: int
    """Training rows; packs, if they are packed."""

    packed: bool

    evaluation_rows: int
    """Rows of an evaluation; packs, if they are packed."""

    evaluation_packed: bool

    processes: int
    accumulation_steps: int

    rows_per_batch: int | None
    """Rows of a micro-batch; None if tokens decide."""

    tokens_per_batch: int | None
    """The most tokens of a micro-batch; None if rows decide."""

    padded: bool
    """Whether batches are padded."""

    padding_expected: bool
    """Whether `padded` is only what the class of the model lets expect (`padding_free=auto`), as it is not run."""


@dataclass(frozen=True)
class TimePlan:
    """How long a run would take on a kind of device."""

    gpu: str
    dtype: str
    """In which matrices are multiplied."""

    peak_flops: float
    """Operations per second of one device."""

    mfu: float
    seconds: float

    price: float | None
    """Of all devices for that time; None without `price_per_hour`."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a run would do and cost."""

    model: str
    """`model_name_or_path`."""

    parameters: int
    trained_parameters: int

    adapters: bool
    """Whether LoRA adapters are trained instead of the model."""

    batches: BatchPlan
    steps: StepCounts
    work: EpochWork
    schedule: RateSchedule
    evaluations: Points
    checkpoints: Points

    kept_checkpoints: int
    """The most that are on disk at the same time: a new one is written before an old one is deleted."""

    weight_bytes: int
    """Size of the trained model, or of its adapters."""

    state_bytes: int | None
    """Size of the optimizer's state in a checkpoint; None if it is not known, as with DeepSpeed."""

    gpu: str | None
    """The planned kind of device; None if none was named."""

    memory: MemoryPlan
    """What a device needs."""

    flops: float | None
    """Floating-point operations of training; None if they are not known."""

    time: TimePlan | None
    """None without `gpu`, or if `flops` is not known."""

    ends_early: bool
    """Whether the run can stop before its last step (`early_stopping_patience`, `stop_on_nonfinite`)."""

    @property
    def tokens_per_step(self) -> float:
        """Tokens of a step without padding, of all processes together, on average."""
        return self.work.tokens / self.steps.per_epoch

    @property
    def disk_bytes(self) -> int | None:
        """Disk for the checkpoints that are kept and the trained model; None if it is not known."""
        if not self.kept_checkpoints:
            return self.weight_bytes
        if self.state_bytes is None:
            return None
        return self.kept_checkpoints * (self.weight_bytes + self.state_bytes) + self.weight_bytes


def plan_run(
    config: TrainConfig,
    arguments: TrainingArguments,
    shards: ShardSet,
    evaluation_sets: Mapping[str, ShardSet] = MappingProxyType({}),
) -> TrainingPlan:
    """Plan the run that `train` would do with the same arguments.

    Args:
        config: the run.
        arguments: made from `config`, with the number of processes to plan for.
        shards: its data.
        evaluation_sets: the data sets of `eval_data`.

    Raises:
        ConfigError: settings cannot be combined.
        TrainingError: model, arguments and shards do not match.
        DataError: a row is invalid; it is named as `path:row`.
        TokenizerError: the tokenizer cannot be loaded.
    """
    use_one_gpu(arguments)
    _check_split(config, arguments)
    tokenizer = load_run_tokenizer(config, shards, evaluation_sets.values())
    outlined = outline(config, arguments, tokenizer)
    feed = make_feed(
        config, arguments, shards, outlined.model, outlined.capabilities, tokenizer.pad_token_id, evaluation_sets
    )
    assert feed.train is not None, "a plan is of a run that trains"
    rows = rows_per_micro_batch(arguments, arguments.train_batch_size)
    batches = feed.train_batches(rows)
    steps = count_steps(batches.batches_per_epoch, arguments)
    work, largest = measure_epoch(feed, batches)
    flops = _flops(outlined, work, steps)
    checkpoints = checkpoint_points(arguments, steps)
    memory = plan_memory(config, arguments, tokenizer, feed, largest)
    return TrainingPlan(
        model=config.model_name_or_path or "",
        parameters=outlined.parameters.total,
        trained_parameters=outlined.parameters.trained,
        adapters=outlined.adapters,
        batches=BatchPlan(
            rows=len(feed.train),
            packed=feed.train.packed,
            evaluation_rows=sum(len(each) for each in feed.evaluation.values()),
            evaluation_packed=all(each.packed for each in feed.evaluation.values()),
            processes=feed.processes,
            accumulation_steps=feed.accumulation_steps,
            rows_per_batch=None if feed.tokens_per_batch is not None else rows,
            tokens_per_batch=feed.tokens_per_batch,
            padded=feed.padded,
            padding_expected=config.padding_free == "auto",
        ),
        steps=steps,
        work=work,
        schedule=rate_schedule(arguments, steps.total),
        evaluations=evaluation_points(arguments, steps),
        checkpoints=checkpoints,
        kept_checkpoints=_kept(arguments, checkpoints.count),
        weight_bytes=outlined.weight_bytes,
        state_bytes=_saved_states(arguments, memory),
        gpu=config.gpu,
        memory=memory,
        flops=flops,
        time=None if flops is None else _time(config, arguments, outlined.model.dtype, flops),
        ends_early=config.early_stopping_patience is not None or config.stop_on_nonfinite is not None,
    )


def _check_split(config: TrainConfig, arguments: TrainingArguments) -> None:
    if config.split_batches and arguments.per_device_train_batch_size % arguments.world_size:
        raise ConfigError(
            f"split_batches: a batch of {arguments.per_device_train_batch_size} (per_device_train_batch_size) cannot be"
            f" split evenly over {arguments.world_size} processes"
        )


def _kept(arguments: TrainingArguments, count: int) -> int:
    limit = arguments.save_total_limit
    if limit is None or limit <= 0:
        return count
    best = int(arguments.metric_for_best_model is not None)  # the best checkpoint stays beside the newest ones
    return min(count, limit + 1 + best)


def _saved_states(arguments: TrainingArguments, memory: MemoryPlan) -> int | None:
    if arguments.save_only_model:
        return 0
    return None if uses_deepspeed(arguments) else memory.all_states


def _flops(outlined: OutlinedModel, work: EpochWork, steps: StepCounts) -> float | None:
    if outlined.cost is None:
        return None
    per_epoch = outlined.cost.flops(work.tokens, work.head_positions, work.squared_lengths)
    return per_epoch * steps.epochs


def _time(config: TrainConfig, arguments: TrainingArguments, dtype: torch.dtype, flops: float) -> TimePlan | None:
    if config.gpu is None:
        return None
    used = mixed_precision(arguments) or dtype
    peak = peak_flops(config.gpu, used, tf32=bool(arguments.tf32))
    if peak is None:
        return None
    seconds = flops / (peak * config.mfu * arguments.world_size)
    price = None if config.price_per_hour is None else config.price_per_hour * arguments.world_size * seconds / 3600
    return TimePlan(config.gpu, str(used).removeprefix("torch."), peak, config.mfu, seconds, price)
