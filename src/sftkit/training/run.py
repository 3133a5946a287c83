"""Run supervised fine-tuning on shards; `train` puts the parts of this package together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from sftkit.config.commands import TrainConfig
from sftkit.config.fields import to_public_data
from sftkit.core.startup.transformers_import import library_log_level
from sftkit.shards.reading import ShardSet
from sftkit.storage.training_files import LOG_NAME
from sftkit.training.adapters.converted_adapters import InitialWeights
from sftkit.training.arguments.checks.setting_conflicts import use_one_gpu
from sftkit.training.arguments.public_values import PublicValues
from sftkit.training.callbacks.checkpoint_callback import CheckpointCallback
from sftkit.training.callbacks.divergence import DivergenceCallback
from sftkit.training.callbacks.early_stopping import EarlyStopping
from sftkit.training.callbacks.listener import RunListener, SilentListener, tell_phase
from sftkit.training.callbacks.logs import JsonLinesLogger, StepReporter, make_aim_logger
from sftkit.training.callbacks.lost_updates import LostUpdatesCallback
from sftkit.training.callbacks.samples import make_sample_callback
from sftkit.training.callbacks.user_callbacks import errors_of_user_callbacks, make_user_callbacks
from sftkit.training.callbacks.watchdog_callback import WatchdogCallback
from sftkit.training.checkpoints.resume import find_resume_point
from sftkit.training.checkpoints.run_identity import run_identity
from sftkit.training.distributed import is_main_process, leave_process_group
from sftkit.training.evaluate import evaluate
from sftkit.training.metrics.loss_curve import CURVE_NAME, draw_curve
from sftkit.training.saving.final_model import AdapterBaseCallback, save_final_model
from sftkit.training.saving.merged_model import save_merged
from sftkit.training.setup.data_setup import feed_for, rows_per_step
from sftkit.training.setup.model_setup import prepare_model
from sftkit.training.setup.trainer_setup import errors_of_a_run, make_trainer
from sftkit.training.trainer import SftTrainer
from sftkit.training.training_report import TrainingReport, make_report


def train(
    config: TrainConfig,
    arguments: TrainingArguments,
    shards: ShardSet,
    listener: RunListener | None = None,
    evaluation_sets: Mapping[str, ShardSet] = MappingProxyType({}),
) -> TrainingReport:
    """Train a model on shards, and save model, tokenizer and chat template to `output_dir`.

    Every process of a launch must call it. If `output_dir` has a complete checkpoint of the same run, the run resumes
    from it. With `do_train=false`, the model is only evaluated.

    Args:
        config: the run.
        arguments: made from `config` by `make_training_arguments`.
        shards: `input_ids` and `labels`, in a `train` split and, for evaluation, a `validation` split.
        listener: receives the events of the run, in the main process only.
        evaluation_sets: the data sets of `eval_data`, which are evaluated beside a validation split.

    Raises:
        ConfigError: settings cannot be combined.
        TrainingError: model, arguments and shards do not match, or memory runs out.
        DataError: a row is invalid; it is named as `path:row`.
        TokenizerError: the tokenizer cannot be loaded.
        OutputError: `output_dir` cannot be written.
    """
    listener = listener or SilentListener()
    _set_verbosity(config, arguments)
    use_one_gpu(arguments)
    set_seed(arguments.seed)
    if not arguments.do_train:
        return evaluate(config, arguments, shards, listener, evaluation_sets)
    prepared = prepare_model(config, arguments, shards, listener, evaluation_sets.values())
    tell_phase(listener, "reading the first rows")
    feed = feed_for(prepared, config, arguments, shards, evaluation_sets)
    identity = run_identity(config, arguments, shards, rows_per_step(config, arguments), padded=feed.padded)
    tell_phase(listener, "looking for checkpoints")
    resume_point = find_resume_point(arguments, identity)
    # The Trainer would delete older checkpoints before the new one is sealed; CheckpointCallback does so afterwards.
    limit, arguments.save_total_limit = arguments.save_total_limit, None
    public = PublicValues.of(config)
    metadata: dict[str, Any] = to_public_data(config.exp_metadata)
    aim = make_aim_logger(config.aim_repo, config.experiment and public.text(config.experiment), metadata)
    samples = make_sample_callback(config, prepared.tokenizer.tokenizer, _template_date(config, shards), listener)
    log = Path(config.output_dir) / LOG_NAME
    logger = JsonLinesLogger(log, listener.on_log, metadata)
    stopping = EarlyStopping(config.early_stopping_patience, config.early_stopping_threshold, logger, listener)
    callbacks: list[TrainerCallback] = [
        logger,
        stopping,
        StepReporter(listener),
        LostUpdatesCallback(),
        AdapterBaseCallback(config),
        *(extra for extra in (aim, samples) if extra is not None),
        *(own := make_user_callbacks(config.user_callbacks)),
    ]
    tell_phase(listener, "preparing the first step")
    trainer = make_trainer(arguments, prepared, feed, callbacks)
    _watch(trainer, config, logger)
    trainer.add_callback(CheckpointCallback(trainer, identity, limit, resume_point, public))
    checkpoint = str(resume_point.checkpoint) if resume_point else None
    closing_aim = closing(aim) if aim is not None else nullcontext()
    with closing_aim, public.command_line(), errors_of_a_run(config.output_dir), errors_of_user_callbacks(own):
        seconds = _run(trainer, checkpoint, config, prepared.initial_weights)
    report = make_report(trainer, seconds, stopping.reason)
    if is_main_process() and config.merge_lora:
        save_merged(config, arguments, prepared.tokenizer.tokenizer, prepared.tokenizer.known_tokens)
    _draw_curve(log, listener)
    leave_process_group()
    return report


def _watch(trainer: SftTrainer, config: TrainConfig, logger: JsonLinesLogger) -> None:
    """Add the callbacks that watch the losses of a trainer."""
    if config.watchdog:
        trainer.add_callback(WatchdogCallback(trainer, logger))
    trainer.add_callback(DivergenceCallback(trainer, config.stop_on_nonfinite))


def _draw_curve(log: Path, listener: RunListener) -> None:
    if not is_main_process():
        return
    try:
        draw_curve(log, log.parent / CURVE_NAME)
    except ModuleNotFoundError:
        listener.on_note(f"{CURVE_NAME} was not drawn: it needs matplotlib; pip install 'sftkit[plot]'")


def _template_date(config: TrainConfig, shards: ShardSet) -> str | None:
    """The day that the chat template was given for the data; None if it is unknown."""
    recorded = shards.manifest.config.get("template_date") if shards.manifest is not None else None
    return config.template_date or recorded


def _run(trainer: SftTrainer, checkpoint: str | None, config: TrainConfig, initial: InitialWeights | None) -> float:
    """Train, evaluate and save; returns the seconds that training took."""
    metrics: dict[str, float] = trainer.train(resume_from_checkpoint=checkpoint).metrics
    if trainer.args.do_eval and not _evaluated_last(trainer):
        trainer.evaluate()
    save_final_model(trainer, config, initial)
    return metrics["train_runtime"]


def _set_verbosity(config: TrainConfig, arguments: TrainingArguments) -> None:
    level = library_log_level(config.log_level) if is_main_process() else "error"
    transformers_logging.set_verbosity(getattr(logging, level.upper()))
    if arguments.disable_tqdm or not is_main_process():
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


def _evaluated_last(trainer: SftTrainer) -> bool:
    return any("eval_loss" in entry and entry["step"] == trainer.state.global_step
               for entry in trainer.state.log_history)  # fmt: skip
