"""The callback that says when a run has diverged, and stops it if asked to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    from sftkit.training.trainer import SftTrainer

_log = logging.getLogger(__name__)


class DivergenceCallback(TrainerCallback):
    """Warns once about losses that are not finite, and stops the run after some steps in a row with such losses.

    Every process must have one: looking at the losses of all processes is a collective operation.
    """

    def __init__(self, trainer: SftTrainer, limit: int | None) -> None:
        """Set up the callback.

        Args:
            trainer: the trainer of the run.
            limit: steps in a row after which the run stops (`stop_on_nonfinite`); None to go on.
        """
        self._trainer, self._limit, self._warned = trainer, limit, False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the run at the limit."""
        if self._limit is not None and self._trainer.nonfinite_losses().in_a_row >= self._limit:
            control.should_training_stop = True
            warn_on_main_process(_log, f"the run is stopped at step {state.global_step} (stop_on_nonfinite)")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Warn at the first log event after a loss that is not finite."""
        losses = self._trainer.nonfinite
        if losses.first_step and not self._warned:
            self._warned = True
            warn_on_main_process(
                _log,
                f"the loss is not finite (NaN or infinite) since step {losses.first_step}; it is logged as null. Lower "
                "learning_rate, or set max_grad_norm; stop_on_nonfinite=N stops a run after N such steps",
            )
