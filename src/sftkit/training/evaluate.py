"""Evaluate a model without training it (`do_train=false do_eval=true`)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from transformers import TrainingArguments

from sftkit.config.commands import TrainConfig
from sftkit.shards.reading import ShardSet
from sftkit.storage.files import atomic_replace
from sftkit.storage.training_files import EVALUATION_NAME
from sftkit.training.callbacks.listener import RunListener, tell_phase
from sftkit.training.callbacks.logs import finite_or_null, log_event
from sftkit.training.callbacks.user_callbacks import errors_of_user_callbacks, make_user_callbacks
from sftkit.training.distributed import is_main_process, leave_process_group
from sftkit.training.setup.data_setup import feed_for
from sftkit.training.setup.model_setup import prepare_model
from sftkit.training.setup.trainer_setup import errors_of_a_run, make_trainer
from sftkit.training.training_report import TrainingReport, make_report


def evaluate(
    config: TrainConfig,
    arguments: TrainingArguments,
    shards: ShardSet,
    listener: RunListener,
    evaluation_sets: Mapping[str, ShardSet],
) -> TrainingReport:
    """Evaluate a model on the validation split and the sets of `eval_data`.

    The metrics are written to `eval_results.json` in `output_dir`. No other file is written or changed. Every process
    of a launch must call it.

    Args:
        config: the run.
        arguments: made from `config` by `make_training_arguments`.
        shards: `input_ids` and `labels` in a `validation` split.
        listener: receives the metrics, in the main process only.
        evaluation_sets: the data sets of `eval_data`.

    Raises:
        TrainingError: model and shards do not match, there is no validation split, or memory runs out.
        DataError: a row is invalid; it is named as `path:row`.
        TokenizerError: the tokenizer cannot be loaded.
        OutputError: `output_dir` cannot be written.
    """
    prepared = prepare_model(config, arguments, shards, listener, evaluation_sets.values())
    tell_phase(listener, "reading the first rows")
    feed = feed_for(prepared, config, arguments, shards, evaluation_sets)
    own = make_user_callbacks(config.user_callbacks)
    trainer = make_trainer(arguments, prepared, feed, own)
    tell_phase(listener, "evaluating")
    started = time.perf_counter()
    with errors_of_a_run(config.output_dir), errors_of_user_callbacks(own):
        trainer.prepare_for_evaluation()
        metrics = trainer.evaluate()
        if is_main_process():
            folder = Path(config.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_replace(folder / EVALUATION_NAME) as temporary:
                temporary.write_text(json.dumps(finite_or_null(metrics), indent=2) + "\n", encoding="utf-8")
            listener.on_log(log_event(trainer.state, metrics))
    report = make_report(trainer, time.perf_counter() - started)
    leave_process_group()
    return report
