"""What a process measures in every step, whether it is logged or not."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Trainer

from sftkit.training.data.work_counts import WorkCounts


@dataclass
class StepMeasures:
    """Loss, gradient norm, work and time of one step of one process."""

    losses: list[torch.Tensor] = field(default_factory=list)
    """Of its micro-batches; their sum is the part of this process in the loss of the step."""

    grad_norm: Any = None
    """Before clipping, of all processes; None until it is known."""

    work: WorkCounts = field(default_factory=WorkCounts)
    started: float = field(default_factory=time.perf_counter)
    """When it began to get its batches."""

    def loss(self) -> float:
        """The sum of the losses; waits for the device."""
        return float(torch.stack(self.losses).sum()) if self.losses else 0.0


class MeasuringTrainer(Trainer):
    """A transformers Trainer that keeps the measures of the present step in `present_step`."""

    present_step = StepMeasures()
    """Replaced at the beginning of each step."""

    def get_batch_samples(self, *arguments: Any, **settings: Any) -> Any:
        """Get the micro-batches of a step: it begins here."""
        self.present_step = StepMeasures()
        batches, items = super().get_batch_samples(*arguments, **settings)
        self.present_step.work = sum((batch.counts for batch in batches), WorkCounts())
        return batches, items

    def training_step(self, *arguments: Any, **settings: Any) -> torch.Tensor:
        """Run a micro-batch, and keep its loss."""
        loss: torch.Tensor = super().training_step(*arguments, **settings)
        self.present_step.losses.append(loss.detach())
        return loss

    def _get_grad_norm(self, *arguments: Any, **settings: Any) -> Any:
        norm = super()._get_grad_norm(*arguments, **settings)  # type: ignore[no-untyped-call]  # as in transformers
        self.present_step.grad_norm = norm
        return norm
