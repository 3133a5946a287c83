"""The keys of `train` about how a run evaluates, stops, and changes parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftkit.config.fields import option
from sftkit.config.schema.shared_options import DataOptions

_TRAINING = "Training"
_EVALUATION = "Evaluation"


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(DataOptions):
    """What `train` offers beside the fields of `transformers.TrainingArguments`."""

    embedding_lr: float | None = option(
        None,
        minimum=0,
        panel=_TRAINING,
        run_identity=True,
        help="Learning rate of the input embeddings and the output head. Default: learning_rate.",
    )
    learning_rates: Mapping[str, float] = option(
        factory=dict,
        panel=_TRAINING,
        run_identity=True,
        help="Learning rates of parameters by a part of their name, a pattern with `*` as in `freeze`, or a regular "
        "expression: `{lm_head: 1e-5, 'layers\\.[0-3]\\.': 0}`. The first that matches counts.",
    )
    eval_data: Mapping[str, tuple[str, ...]] = option(
        factory=dict,
        location=True,
        panel=_EVALUATION,
        help="Data sets to evaluate on, each with a loss of its own: `{math: math.jsonl, code: shards}`. Paths as for "
        "validation_data_path, or shards.",
    )
    early_stopping_patience: int | None = option(
        None,
        minimum=1,
        panel=_EVALUATION,
        help="Stop after this many evaluations in a row without a better metric_for_best_model (default: eval_loss), "
        "and save the best model. Needs eval_strategy.",
    )
    early_stopping_threshold: float = option(
        0.0,
        minimum=0,
        panel=_EVALUATION,
        help="How much better than the best one before an evaluation must be to count for early_stopping_patience.",
    )
    watchdog: bool = option(
        True,
        panel="Tracking",
        help="Warn of spikes of the loss and of gradient norms, and of a run that has become slow.",
    )
    user_callbacks: tuple[str, ...] = option(
        (),
        panel="Tracking",
        trusted_only=True,
        help="Your own callbacks, subclasses of `transformers.TrainerCallback`, as `package.module:Class`. Modules in "
        "the working directory are found, too.",
    )
