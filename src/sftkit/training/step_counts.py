"""How many steps a run has, by the Trainer's arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass(frozen=True)
class StepCounts:
    """The steps of a run; a step is one update of the weights.

    Example:
        >>> str(StepCounts(batches_per_epoch=1000, per_epoch=500, total=1250))
        '1,250 in all (500 an epoch, 2.5 epochs)'
    """

    batches_per_epoch: int
    """Micro-batches of one process in an epoch."""

    per_epoch: int

    total: int
    """Steps of the whole run."""

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return self.total / self.per_epoch

    def __str__(self) -> str:
        epochs = f"{self.epochs:,.4g} epoch{'' if self.epochs == 1 else 's'}"
        return f"{self.total:,} in all ({self.per_epoch:,} an epoch, {epochs})"


def count_steps(batches_per_epoch: int, arguments: TrainingArguments) -> StepCounts:
    """Count the steps of a run as the Trainer does (`Trainer.set_initial_training_values`, 5.23).

    Args:
        batches_per_epoch: micro-batches of one process in an epoch.
        arguments: `max_steps`, `num_train_epochs` and `gradient_accumulation_steps` of the run.
    """
    per_epoch = max(-(-batches_per_epoch // arguments.gradient_accumulation_steps), 1)
    limited = arguments.max_steps >= 0
    total = arguments.max_steps if limited else math.ceil(arguments.num_train_epochs * per_epoch)
    return StepCounts(batches_per_epoch, per_epoch, total)
