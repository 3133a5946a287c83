"""The part of the Trainer that makes optimizer and scheduler, and knows the learning rate of each parameter group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer

from sftkit.training.arguments.checks.optimizer_checks import MUON
from sftkit.training.optimization.learning_rates import RateRule
from sftkit.training.optimization.optimizer_choice import optimizer_for
from sftkit.training.optimization.parameter_groups import rates_by_name
from sftkit.training.optimization.refusals import refusals_as_config_errors


class OptimizingTrainer(Trainer):
    """A transformers Trainer whose parameter groups may have learning rates of their own."""

    rates: Sequence[RateRule] = ()
    """Parameters with learning rates of their own; set before training."""

    _logged_rates: dict[str, float] = {}  # noqa: RUF012 - replaced, never changed

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make the optimizer; what its class refuses is an error in the configuration."""
        with refusals_as_config_errors("optim", self.args.optim, "optim_args"):
            if self.rates or self.args.optim == MUON:
                self.optimizer_cls_and_kwargs = optimizer_for(self, model or self.model, self.rates)
            return super().create_optimizer(model)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the learning rate scheduler; what its function refuses is an error in the configuration."""
        with refusals_as_config_errors("lr_scheduler_type", self.args.lr_scheduler_type, "lr_scheduler_kwargs"):
            return super().create_scheduler(num_training_steps, optimizer)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log an event; to those with the learning rate, add that of each group with its own."""
        if "learning_rate" in logs:
            logs |= {f"learning_rate/{name}": rate for name, rate in self._logged_rates.items()}
        super().log(logs, start_time)

    def _get_learning_rate(self) -> float:
        """The learning rate of a step, which the Trainer logs; called before the scheduler changes it."""
        assert self.optimizer is not None
        self._logged_rates = rates_by_name(self.optimizer.param_groups)
        return super()._get_learning_rate()
