"""Open the data of a run and decide how they are batched for its model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from sftkit.config.commands import TrainConfig
from sftkit.core.splits import TRAIN, VALIDATION
from sftkit.errors import ConfigError, TrainingError
from sftkit.shards.reading import ShardSet
from sftkit.training.data.collation import Collator, FlatCollator, PaddingCollator
from sftkit.training.data.epoch_order import EpochOrder, Shuffling
from sftkit.training.data.feed import Feed, rows_per_micro_batch
from sftkit.training.data.rows.open_split import open_split
from sftkit.training.data.rows.row_limits import RowLimit
from sftkit.training.data.rows.split_rows import SplitRows
from sftkit.training.distributed import warn_on_main_process
from sftkit.training.metrics.evaluation_metrics import set_of_metric
from sftkit.training.models.capabilities import Capabilities
from sftkit.training.models.model_loading import embedding_rows
from sftkit.training.models.sequence_separation import boundary_encoder_for
from sftkit.training.setup.detail_columns import used_details
from sftkit.training.setup.position_check import check_positions, longest_row
from sftkit.training.tensor_parallel import data_process_index, data_processes
from sftkit.training.trials.positions import last_learned_position
from sftkit.training.trials.sequence_rope import depends_on_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

    from sftkit.training.setup.model_setup import PreparedModel

_log = logging.getLogger(__name__)


def rows_per_step(config: TrainConfig, arguments: TrainingArguments) -> int:
    """Rows that all processes take in a step; with a token budget, micro-batches."""
    parts: int = arguments.gradient_accumulation_steps * data_processes(arguments)
    return parts * (
        rows_per_micro_batch(arguments, arguments.train_batch_size) if config.tokens_per_device_batch is None else 1
    )


def feed_for(
    prepared: PreparedModel,
    config: TrainConfig,
    arguments: TrainingArguments,
    shards: ShardSet,
    evaluation_sets: Mapping[str, ShardSet],
) -> Feed:
    """The feed of a run whose model is ready; see `make_feed`."""
    return make_feed(
        config,
        arguments,
        shards,
        prepared.model,
        prepared.capabilities,
        prepared.tokenizer.pad_token_id,
        evaluation_sets,
    )


def make_feed(
    config: TrainConfig,
    arguments: TrainingArguments,
    shards: ShardSet,
    model: PreTrainedModel,
    capabilities: Capabilities,
    pad_token_id: int,
    evaluation_sets: Mapping[str, ShardSet] = MappingProxyType({}),
) -> Feed:
    """Open the splits of a run and decide how their rows are batched; the first rows are read and checked.

    Args:
        config: the run.
        arguments: its training arguments.
        shards: its data.
        model: the model, for its vocabulary and attention.
        capabilities: what the model can do.
        pad_token_id: fills up padded batches.
        evaluation_sets: the data sets of `eval_data`.

    Raises:
        ConfigError: a set of `eval_data` has the name of the validation split, which is there, too; or the loss of the
            model cannot have the weights of the data.
        TrainingError: no row has a trained token, or `padding_free=true` and the model cannot separate sequences, or it
            has too few positions.
        DataError: a row is invalid; it is named as `path:row`.
    """
    streaming = config.dataprocessor.streaming
    vocabulary_size = embedding_rows(model)
    limit = None if config.max_seq_length is None else RowLimit(config.max_seq_length, config.overflow)
    evaluated = _evaluated(shards, evaluation_sets) if arguments.do_eval else {}
    details = used_details(config, arguments, [*evaluated.values(), *([(shards, TRAIN)] if arguments.do_train else [])])
    window = config.shuffle_window
    open_one = partial(
        open_split, vocabulary_size=vocabulary_size, limit=limit, max_cached_tokens=window, details=details
    )
    train = open_one(shards, TRAIN, streaming=streaming) if arguments.do_train else None
    evaluation = {name: open_one(found, split) for name, (found, split) in evaluated.items()}
    _check_best_metric(arguments.metric_for_best_model, evaluation, shards)
    if train is not None:
        check_positions(model, train, longest_row(shards, TRAIN), config.max_seq_length)
    for name, rows in evaluation.items():
        check_positions(model, rows, longest_row(*evaluated[name]), config.max_seq_length)
    flat = _is_flat(config, capabilities)
    seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
    shuffled = arguments.train_sampling_strategy != "sequential"
    _read_first_rows(train, evaluation, Shuffling(window, seed, shuffled), streaming=streaming)
    return Feed(
        train=train,
        evaluation=evaluation,
        collate=_collator(model, capabilities, pad_token_id, flat=flat),
        padded=not flat,
        seed=seed,
        shuffle_window=window,
        shuffled=shuffled,
        group_by_length=arguments.train_sampling_strategy == "group_by_length",
        tokens_per_batch=config.tokens_per_device_batch,
        drop_last=arguments.dataloader_drop_last,
        streaming=streaming,
        accumulation_steps=arguments.gradient_accumulation_steps,
        processes=data_processes(arguments),
        process_index=data_process_index(arguments),
        workers=arguments.dataloader_num_workers,
        prefetch=arguments.dataloader_prefetch_factor,
    )


def _read_first_rows(
    train: SplitRows | None, evaluation: Mapping[str, SplitRows], shuffling: Shuffling, *, streaming: bool
) -> None:
    """Read the rows that the run begins with, so that errors in them appear now."""
    if train is not None and streaming:
        _read_ahead(train, ([group] for file in range(train.files) for group in train.groups_of(file)), TRAIN)
    elif train is not None:
        _read_ahead(train, EpochOrder(train, shuffling, 0).windows, TRAIN)
        train.skip_unusable_rows()
    for name, rows in evaluation.items():
        _read_ahead(rows, ([group] for group in range(len(rows.locations))), name)


def _evaluated(shards: ShardSet, sets: Mapping[str, ShardSet]) -> dict[str, tuple[ShardSet, str]]:
    """What is evaluated, by name: shards and the split of them. Without `eval_data`, the validation split."""
    found = {name: (each, VALIDATION if each.splits.get(VALIDATION) else TRAIN) for name, each in sets.items()}
    is_one_of_them = any(each is shards for each in sets.values())
    if not sets or (shards.splits.get(VALIDATION) and not is_one_of_them):
        if VALIDATION in found:
            raise ConfigError(
                f"eval_data: {VALIDATION} is the name of the validation split of {shards.root}; use another name"
            )
        found[VALIDATION] = (shards, VALIDATION)
    return found


def _check_best_metric(metric: str | None, evaluation: Mapping[str, SplitRows], shards: ShardSet) -> None:
    """Refuse to choose the best model by a set that is not evaluated."""
    chosen = None if metric is None else set_of_metric(f"eval_{metric.removeprefix('eval_')}")
    if evaluation and chosen is not None and chosen not in evaluation:
        raise ConfigError(f"metric_for_best_model={metric}: there is no {chosen} split in {shards.root}")


def _is_flat(config: TrainConfig, capabilities: Capabilities) -> bool:
    """Whether batches are flat, without padding."""
    if config.padding_free == "false":
        return False
    if capabilities.separates_sequences:
        return True
    obstacle = "the model does not separate sequences in a flat batch"
    if config.padding_free == "true":
        raise TrainingError(f"padding_free: {obstacle}; set padding_free=auto to pad batches instead")
    warn_on_main_process(_log, f"{obstacle}: batches are padded instead")
    if not capabilities.ignores_padding:
        warn_on_main_process(
            _log,
            "padding changes what the model computes, so the loss is not exact: set per_device_train_batch_size=1 and"
            " per_device_eval_batch_size=1, and train on rows that are not packed",
        )
    return False


def _collator(model: PreTrainedModel, capabilities: Capabilities, pad_token_id: int, *, flat: bool) -> Collator:
    if flat:
        return FlatCollator(capabilities.supports_logits_to_keep, boundary_encoder_for(model))
    padding = PaddingCollator(capabilities.supports_logits_to_keep, pad_token_id, depends_on_length(model))
    # A model that padding disturbs needs rows without any; and rounding up must not exceed the positions of a model.
    exact = not capabilities.ignores_padding or (last_learned_position(model) or 0) % padding.width_multiple
    return replace(padding, width_multiple=1) if exact else padding


def _read_ahead(rows: SplitRows, windows: Iterable[list[int]], split: str) -> None:
    """Read rows until one can be trained on, so that errors in the first rows are found before the first step."""
    for window in windows:
        if sum(len(rows.group(group).input_ids) for group in window):
            rows.warn_of_skipped_rows()
            return
    raise TrainingError(
        f"{rows.name}: no row of the {split} split has a trained token; use rows whose `labels` are not all -100 within"
        " max_seq_length"
    )
