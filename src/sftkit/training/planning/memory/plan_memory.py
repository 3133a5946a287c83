"""Plan the memory of a run on each device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sftkit.config.commands import TrainConfig
from sftkit.training.adapters.adapter_choice import uses_adapters
from sftkit.training.data.feed import Feed, rows_per_micro_batch
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.metrics.hardware import memory_size
from sftkit.training.models.run_tokenizer import RunTokenizer
from sftkit.training.planning.memory.memory_use import MemoryPlan, Remedy, fits
from sftkit.training.planning.memory.planned_case import PlannedCase
from sftkit.training.planning.memory.remedies import ROWS, TOKENS, Situation, find_remedies
from sftkit.training.planning.memory.sharding import fully_sharded, sharding_of

if TYPE_CHECKING:
    from transformers import TrainingArguments


def plan_memory(
    config: TrainConfig,
    arguments: TrainingArguments,
    tokenizer: RunTokenizer,
    feed: Feed,
    sequences: Sequence[TokenSequences],
) -> MemoryPlan:
    """Estimate the memory of a run on each device, and if it does not fit, what would.

    The model of the run is made without weights, and one step is run on tensors without values, which takes the shapes,
    the order and the gradient checkpointing of the real one.

    Args:
        config: the run.
        arguments: made from `config`, with the number of processes to plan for.
        tokenizer: of the run.
        feed: of the run, which says how micro-batches are collated.
        sequences: the rows of the largest micro-batch.

    Raises:
        TrainingError: the model cannot be outlined.
    """
    sharding = sharding_of(arguments)
    case = PlannedCase(config, arguments, tokenizer, feed.collate, sharding)
    checkpointing = bool(arguments.gradient_checkpointing)
    use = case.use(sequences, checkpointing=checkpointing)
    possible = checkpointing or case.can_checkpoint
    otherwise = case.use(sequences, checkpointing=not checkpointing) if possible else None
    capacity = None if config.gpu is None else memory_size(config.gpu)
    remedies: tuple[Remedy, ...] = ()
    if capacity is not None and not fits(use.total, capacity):

        def sharded() -> PlannedCase:
            return PlannedCase(config, arguments, tokenizer, feed.collate, fully_sharded(arguments.world_size))

        def adapted() -> PlannedCase:
            return PlannedCase(replace(config, use_peft=True), arguments, tokenizer, feed.collate, sharding)

        remedies = find_remedies(
            Situation(
                case=case,
                sequences=sequences,
                checkpointing=checkpointing,
                can_checkpoint=possible and not checkpointing,
                capacity=capacity,
                processes=arguments.world_size,
                batch_key=ROWS if feed.tokens_per_batch is None else TOKENS,
                batch_size=feed.tokens_per_batch or rows_per_micro_batch(arguments, arguments.train_batch_size),
                accumulation_steps=feed.accumulation_steps,
                sharded=None if sharding.name else sharded,
                adapted=None if uses_adapters(config) else adapted,
            )
        )
    counts = case.batch(sequences).counts
    return MemoryPlan(
        use=use,
        all_gradients=case.all_gradients,
        checkpointing=checkpointing,
        otherwise=otherwise,
        rows=len(sequences),
        tokens=counts.slots,
        attention=case.attention,
        sharding=sharding.name,
        rough=case.rough,
        all_states=case.all_states,
        capacity=capacity,
        remedies=remedies,
    )
