"""Supervised fine-tuning on shards: the one function that composes this room."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from sftkit.config.schema import TrainConfig
from sftkit.errors import OutputError, TrainingError
from sftkit.shards.reading import ShardSet
from sftkit.splits import TRAIN, VALIDATION
from sftkit.training.callbacks import LOG_NAME, AimLog, JsonLinesLog, LogEvent, aim_log, ignore_event
from sftkit.training.checkpoints import checkpoint_to_resume
from sftkit.training.data import PaddingCollator, RowLimit, TokenDataset, load_split
from sftkit.training.distributed import is_main_process, leave_process_group, warn_once, world_size
from sftkit.training.model import embedding_rows, fit_embeddings, load_model
from sftkit.training.provenance import RunTokenizer, run_tokenizer
from sftkit.training.trainer import SftTrainer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingReport:
    """What a run did.

    steps: optimizer steps, those before a resumed checkpoint included.
    first_loss, last_loss, eval_loss: as logged; None where none was.
    seconds: time in the training loop. tokens, trained_tokens: over all processes and epochs, of this run alone.
    """

    steps: int
    first_loss: float | None
    last_loss: float | None
    eval_loss: float | None
    seconds: float
    tokens: int
    trained_tokens: int
    output_dir: Path


def train(
    config: TrainConfig,
    arguments: TrainingArguments,
    shards: ShardSet,
    on_log: Callable[[LogEvent], None] = ignore_event,
) -> TrainingReport:
    """Train a model on shards and save model, tokenizer and chat template to `output_dir`.

    Every process of a launch calls it.

    Args:
        config: the run.
        arguments: made from `config` by `make_training_arguments`.
        shards: `input_ids` and `labels`, in a `train` split and, for evaluation, a `validation` split.
        on_log: gets each log event as it is written to `training_logs.jsonl`, in the main process alone.

    Raises:
        TrainingError: model, arguments and shards do not go together, or memory runs out.
        DataError: a row cannot be used; it is named as `path:row`.
        TokenizerError: the tokenizer cannot be loaded.
        OutputError: `output_dir` cannot be written.
    """
    _set_verbosity(config, arguments)
    checkpoint = checkpoint_to_resume(arguments)
    tokenizer = run_tokenizer(config, shards)
    set_seed(arguments.seed)
    model = load_model(config, arguments)
    fit_embeddings(model, len(tokenizer.tokenizer), tokenizer.known_tokens)
    vocabulary_size = embedding_rows(model)
    limit = None if config.max_seq_length is None else RowLimit(config.max_seq_length, config.overflow)
    train_rows = load_split(shards, TRAIN, vocabulary_size, limit)
    eval_rows = load_split(shards, VALIDATION, vocabulary_size, limit) if arguments.do_eval else None
    _check_positions(model, train_rows)
    _keep_one_batch(arguments, train_rows)

    aim = aim_log(config.aim_repo, config.experiment)
    trainer = _make_trainer(config, arguments, model, tokenizer, train_rows, eval_rows, aim, on_log)
    try:
        seconds = _run(trainer, checkpoint)
    finally:
        if aim is not None:
            aim.close()
    counts = trainer.token_counts()
    leave_process_group()
    return TrainingReport(
        steps=trainer.state.global_step,
        first_loss=next(iter(_logged(trainer, "loss")), None),
        last_loss=next(reversed(_logged(trainer, "loss")), None),
        eval_loss=next(reversed(_logged(trainer, "eval_loss")), None),
        seconds=seconds,
        tokens=counts.tokens,
        trained_tokens=counts.trained_tokens,
        output_dir=Path(config.output_dir),
    )


def _make_trainer(
    config: TrainConfig,
    arguments: TrainingArguments,
    model: Any,
    tokenizer: RunTokenizer,
    train_rows: TokenDataset,
    eval_rows: TokenDataset | None,
    aim: AimLog | None,
    on_log: Callable[[LogEvent], None],
) -> SftTrainer:
    callbacks: list[TrainerCallback] = [JsonLinesLog(Path(config.output_dir) / LOG_NAME, on_log)]
    if aim is not None:
        callbacks.append(aim)
    try:
        return SftTrainer(
            model=model,
            arguments=arguments,
            collate=PaddingCollator(tokenizer.pad_token_id),
            train_dataset=train_rows,
            eval_dataset=eval_rows,
            tokenizer=tokenizer.tokenizer,
            callbacks=callbacks,
            log_rate=config.include_tokens_per_second,
        )
    except torch.OutOfMemoryError as error:
        raise _out_of_memory() from error
    except (ValueError, RuntimeError, ImportError, NotImplementedError, OSError) as error:
        # What the Trainer refuses: arguments that contradict each other, trackers that are not installed, ...
        raise TrainingError(f"the run cannot be set up: {' '.join(str(error).split())}") from error


def _run(trainer: SftTrainer, checkpoint: str | None) -> float:
    """Train, evaluate and save; the seconds that training took."""
    try:
        metrics: dict[str, float] = trainer.train(resume_from_checkpoint=checkpoint).metrics
        if trainer.args.do_eval and not _evaluated_last(trainer):
            trainer.evaluate()
        _save(trainer)
    except torch.OutOfMemoryError as error:
        raise _out_of_memory() from error
    except OSError as error:
        place = error.filename or trainer.args.output_dir
        raise OutputError(f"{place}: cannot be written or read: {error.strerror or error}") from error
    return metrics["train_runtime"]


def _save(trainer: SftTrainer) -> None:
    """Save the whole model; under FSDP every process has a part of it."""
    if trainer.is_fsdp_enabled:
        # Checkpoints may be sharded, as the launch asks; with that setting the Trainer would save no model at all.
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model()
    trainer.save_state()


def _out_of_memory() -> TrainingError:
    return TrainingError(
        "the GPU's memory is used up: lower per_device_train_batch_size or max_seq_length,"
        " or set gradient_checkpointing=true"
    )


def _set_verbosity(config: TrainConfig, arguments: TrainingArguments) -> None:
    if not is_main_process():
        transformers_logging.set_verbosity(logging.ERROR)
    elif config.log_level != "passive":
        transformers_logging.set_verbosity(getattr(logging, config.log_level.upper()))
    if arguments.disable_tqdm or not is_main_process():
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


def _check_positions(model: Any, rows: TokenDataset) -> None:
    longest = int(rows.input_ids.lengths.max())
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and longest > positions:
        warn_once(_log, f"the longest row has {longest} tokens; the model was made for {positions} positions")


def _keep_one_batch(arguments: TrainingArguments, rows: TokenDataset) -> None:
    """`dataloader_drop_last` drops a batch that is not full; of rows that fill not even one, nothing would be left."""
    settings: Any = arguments.accelerator_config  # an AcceleratorConfig, once TrainingArguments has made it
    rows_a_step = arguments.train_batch_size
    if not settings.split_batches:
        rows_a_step *= world_size()
    if arguments.dataloader_drop_last and len(rows) < rows_a_step:
        warn_once(
            _log,
            f"dataloader_drop_last would drop every row: there are {len(rows)} and a step takes {rows_a_step}; "
            "the last batch is kept",
        )
        arguments.dataloader_drop_last = False


def _evaluated_last(trainer: SftTrainer) -> bool:
    return any("eval_loss" in entry and entry["step"] == trainer.state.global_step
               for entry in trainer.state.log_history)  # fmt: skip


def _logged(trainer: SftTrainer, key: str) -> list[float]:
    return [float(entry[key]) for entry in trainer.state.log_history if key in entry]
