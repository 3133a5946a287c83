"""The callback that reports spikes of the loss and of gradient norms, and a run that has become slow."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftkit.training.callbacks.logs import JsonLinesLogger
from sftkit.training.distributed import is_main_process, warn_on_main_process
from sftkit.training.metrics.spikes import FallDetector, SpikeDetector

if TYPE_CHECKING:
    from sftkit.training.trainer import SftTrainer

_log = logging.getLogger(__name__)

LOG_KEY = "warning"
"""Key of the sentence in the log."""

_MOST_REPORTS = 3  # of each kind
_PAUSE = 64  # steps between two reports of a kind


class WatchdogCallback(TrainerCallback):
    """Watches loss, gradient norm and tokens per second of the main process in every step.

    Evaluations and saving do not count, because a step begins when the Trainer gets its batches. Nothing that the
    watchdog does changes the run.
    """

    def __init__(self, trainer: SftTrainer, log: JsonLinesLogger) -> None:
        """Set up the callback.

        Args:
            trainer: the trainer of the run.
            log: gets a line for each report.
        """
        self._trainer, self._log = trainer, log
        self._loss = SpikeDetector(deviations=8, factor=1.5, beyond=1.25, least_rise=0.2)
        self._norm = SpikeDetector(deviations=10, factor=5, beyond=2)
        self._rate = FallDetector()
        self._reports: Counter[str] = Counter()
        self._last_report: dict[str, int] = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the step that ends."""
        step = self._trainer.present_step
        norm = float(step.grad_norm) if step.grad_norm is not None else 0.0  # may need all processes
        if not is_main_process():
            return
        loss = step.loss()  # waits for the device, so that the time is that of the whole step
        seconds = time.perf_counter() - step.started
        usual = self._loss.usual(loss, step.work.trained_tokens)
        if usual is not None:
            self._report(
                state,
                "loss",
                f"the loss is {loss:.4g}, and was about {usual:.4g} before. If it stays high, lower learning_rate",
            )
        usual = self._norm.usual(norm, step.work.trained_tokens)
        if usual is not None:
            clipped = f"is clipped to max_grad_norm={args.max_grad_norm:g}" if args.max_grad_norm else "is not clipped"
            self._report(
                state, "norm", f"the gradient norm is {norm:.4g}, and was about {usual:.4g} before; it {clipped}"
            )
        rates = self._rate.fallen(step.work.tokens, seconds)
        if rates is not None:
            self._report(
                state,
                "rate",
                f"the run has become slow: {rates[0]:,.0f} tokens/s, after {rates[1]:,.0f} before. Look for other "
                "programs on this machine, slow storage, or much shorter rows",
            )

    def _report(self, state: TrainerState, kind: str, sentence: str) -> None:
        step = state.global_step
        if self._reports[kind] >= _MOST_REPORTS or step - self._last_report.get(kind, -_PAUSE) < _PAUSE:
            return
        self._reports[kind] += 1
        self._last_report[kind] = step
        last = " (not reported again)" if self._reports[kind] == _MOST_REPORTS else ""
        warn_on_main_process(_log, f"step {step:,}: {sentence}{last}")
        self._log.add(state, {LOG_KEY: sentence})
