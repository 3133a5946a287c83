"""The callback that notices when 16-bit weights are too coarse for the updates of the optimizer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftkit.training.arguments.checks.optimizer_checks import keeps_small_updates
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)

_STEPS = 10
_MOST_WEIGHTS = 1 << 20
_LEAST_MOVED = 0.5  # share of the weights


class LostUpdatesCallback(TrainerCallback):
    """Warns if most weights do not change, because their updates are below what their data type can hold.

    A bfloat16 number has 8 significant bits: adding less than 1/512 of it changes nothing. AdamW changes each weight by
    about the learning rate, so that a weight of 0.02 needs a learning rate above 6e-5. In float32 with `bf16=true`,
    such updates add up.

    It compares a sample of the weights (2-D tensors in 16 bits that are trained and have a gradient) over 10 steps
    after the warmup, when the learning rate is the highest.
    """

    def __init__(self) -> None:
        self._first_step: int | None = None
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._has_gradient: list[torch.Tensor] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Decide which steps are compared; none if the optimizer keeps small updates, or if they were before."""
        if not keeps_small_updates(args):
            self._first_step = int(args.get_warmup_steps(state.max_steps))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy the sample before the first of these steps, and remember which of its weights have a gradient."""
        if self._first_step == state.global_step:
            sample = list(_sample(kwargs["model"]))
            self._before = [(weight, weight.detach().clone()) for weight in sample]
            self._has_gradient = [weight.grad != 0 for weight in sample if weight.grad is not None]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Compare the sample after the last of these steps."""
        if not self._before or self._first_step is None or state.global_step < self._first_step + _STEPS:
            return
        pairs = zip(self._before, self._has_gradient, strict=True)
        moved = [(weight != before)[trained] for (weight, before), trained in pairs]
        self._before, self._has_gradient = [], []
        weights = sum(each.numel() for each in moved)
        share = sum(int(each.sum()) for each in moved) / max(weights, 1)
        if weights and share < _LEAST_MOVED:
            warn_on_main_process(
                _log,
                f"only {share:.0%} of the weights changed in {_STEPS} steps: the others are too coarse in 16 bits for "
                "updates of this size. Use torch_dtype=float32 with bf16=true, optim=stable_adamw, or a higher "
                "learning_rate",
            )


def _sample(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Trained 16-bit tensors with a gradient, up to about a million weights."""
    weights = 0
    for parameter in model.parameters():
        is_sampled = parameter.dtype in (torch.bfloat16, torch.float16) and parameter.dim() == 2
        if not is_sampled or parameter.grad is None or type(parameter.data) is not torch.Tensor:
            continue
        yield parameter
        weights += parameter.numel()
        if weights >= _MOST_WEIGHTS:
            return
