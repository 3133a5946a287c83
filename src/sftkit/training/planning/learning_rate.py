"""The learning rate over the steps of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from sftkit.training.optimization.refusals import refusals_as_config_errors

if TYPE_CHECKING:
    from transformers import TrainingArguments

_POINTS = 48


@dataclass(frozen=True)
class RateSchedule:
    """How the learning rate of a run changes."""

    name: str
    """The scheduler, such as `linear`."""

    peak: float
    """`learning_rate`, which the schedule multiplies."""

    warmup_steps: int

    shares: tuple[float, ...]
    """Rates at evenly spaced steps, the first and the last included, divided by `peak`; empty if losses decide."""


def rate_schedule(arguments: TrainingArguments, steps: int) -> RateSchedule:
    """Compute the learning rates of a run with the scheduler that the Trainer uses.

    Args:
        arguments: of the run.
        steps: in all.

    Raises:
        ConfigError: the scheduler cannot be made from `lr_scheduler_kwargs`.
    """
    rate = float(arguments.learning_rate)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    name = str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type))
    warmup = int(arguments.get_warmup_steps(steps))
    extra: Any = arguments.lr_scheduler_kwargs
    with refusals_as_config_errors("lr_scheduler_type", name, "lr_scheduler_kwargs"):
        scheduler: Any = get_scheduler(name, optimizer, warmup, steps, scheduler_specific_kwargs=extra or None)
    if not isinstance(scheduler, LambdaLR) or not steps:
        return RateSchedule(name, rate, warmup, ())
    points = min(_POINTS, steps)
    at = [number * (steps - 1) // max(points - 1, 1) for number in range(points)]
    [share] = scheduler.lr_lambdas
    return RateSchedule(name, rate, warmup, tuple(float(share(step)) for step in at))
