"""The callback that stops a run when evaluations no longer get better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftkit.training.callbacks.listener import RunListener
from sftkit.training.callbacks.logs import JsonLinesLogger

LOG_KEY = "stopped_early"
"""Key of the sentence in the log."""


@dataclass(frozen=True)
class Waiting:
    """How evaluations went on since the best one."""

    evaluations: int = 0
    """Since the last one that was better by more than the threshold."""

    best: float = math.nan
    """The best value so far; NaN if there is none that is finite."""

    best_step: int = 0


def wait_for_better(values: Iterable[tuple[int, float]], *, greater_is_better: bool, threshold: float = 0.0) -> Waiting:
    """Count the evaluations since the last one that was better by more than a threshold than all before it.

    This is the rule of transformers' `EarlyStoppingCallback`. That counts in memory, and forgets it when a run resumes.

    Args:
        values: step and value of each evaluation so far.
        greater_is_better: whether greater values are better.
        threshold: how much better than the best one before it a value must be.

    Example:
        >>> wait_for_better([(1, 3.0), (2, 2.0), (3, 2.5), (4, 1.9)], greater_is_better=False, threshold=0.2)
        Waiting(evaluations=2, best=1.9, best_step=4)
    """
    sign = 1 if greater_is_better else -1
    found = Waiting()
    for step, value in values:
        gain = sign * (value - found.best) if math.isfinite(found.best) else math.inf
        if not math.isfinite(value):
            gain = -math.inf
        evaluations = 0 if gain > threshold else found.evaluations + 1
        found = Waiting(evaluations, value, step) if gain > 0 else Waiting(evaluations, found.best, found.best_step)
    return found


class EarlyStopping(TrainerCallback):
    """Stops a run after some evaluations in a row without a better metric.

    It counts the evaluations in the Trainer's history, which checkpoints contain. So a run that resumes stops at the
    same step, and one that resumes after that does no step. Every process must have one, and comes to the same result,
    because all have the same metrics.
    """

    def __init__(self, patience: int | None, threshold: float, log: JsonLinesLogger, listener: RunListener) -> None:
        """Set up the callback.

        Args:
            patience: evaluations without a better metric after which the run stops; None to never stop.
            threshold: see `wait_for_better`.
            log: gets a line with the reason.
            listener: gets the reason as a note.
        """
        self.reason: str | None = None
        """Why the run was stopped; None if it was not."""
        self._patience, self._threshold = patience, threshold
        self._log, self._listener = log, listener

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop a run that resumes after the evaluation that had stopped it."""
        self._stop_if_due(args, state, control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the run if the metric has not been better for long enough."""
        if self._stop_if_due(args, state, control):
            self._log.add(state, {LOG_KEY: self.reason})

    def _stop_if_due(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> bool:
        if self._patience is None or self.reason is not None or state.global_step >= state.max_steps:
            return False
        metric = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
        found = wait_for_better(
            _values(state.log_history, metric),
            greater_is_better=bool(args.greater_is_better),
            threshold=self._threshold,
        )
        if found.evaluations < self._patience:
            return False
        self.reason = self._sentence(metric, found, state.global_step, loads_best=args.load_best_model_at_end)
        control.should_training_stop = True
        if state.is_world_process_zero:
            self._listener.on_note(f"the run stops at step {state.global_step:,}: {self.reason}")
        return True

    def _sentence(self, metric: str, found: Waiting, step: int, *, loads_best: bool) -> str:
        count = f"{found.evaluations} evaluation{'s' if found.evaluations > 1 else ''}"
        by = f" by more than {self._threshold:g}" if self._threshold else ""
        model = "saved is the best model" if loads_best else f"saved is the model of step {step:,}"
        return (
            f"{metric} was not better{by} for {count}; the best is {found.best:.4g} at step "
            f"{found.best_step:,}, {model}"
        )


def _values(history: Iterable[Mapping[str, Any]], metric: str) -> Iterable[tuple[int, float]]:
    return [(int(entry["step"]), float(entry[metric])) for entry in history if metric in entry]
