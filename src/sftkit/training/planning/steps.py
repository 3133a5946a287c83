"""After which steps a run evaluates and saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import TrainerState

from sftkit.training.step_counts import StepCounts

if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass(frozen=True)
class Points:
    """The steps after which a run evaluates, or saves a checkpoint."""

    count: int

    every: str
    """When, in words, such as `every 100 steps`; empty for never."""


def evaluation_points(arguments: TrainingArguments, steps: StepCounts) -> Points:
    """When a run evaluates: as `eval_strategy` says, and in any case at the end."""
    if not arguments.do_eval:
        return Points(0, "")
    state = TrainerState()
    state.compute_steps(arguments, steps.total)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    at_start = int(bool(arguments.eval_on_start))
    strategy, delay = _name(arguments.eval_strategy), float(arguments.eval_delay or 0)
    if strategy == "steps":
        interval = int(state.eval_steps)
        counted = sum(1 for step in range(interval, steps.total + 1, interval) if step >= delay)
        at_end = steps.total % interval != 0 or steps.total < delay
        return Points(at_start + counted + at_end, f"every {interval:,} steps and at the end")
    if strategy == "epoch":
        ends = [min(number * steps.per_epoch, steps.total) / steps.per_epoch for number in range(1, _epochs(steps) + 1)]
        counted = sum(1 for end in ends if end >= delay)
        return Points(at_start + counted + (not ends or ends[-1] < delay), "after every epoch")
    return Points(at_start + 1, "at the end")


def checkpoint_points(arguments: TrainingArguments, steps: StepCounts) -> Points:
    """When a run saves a checkpoint; with `save_strategy=best`, at most."""
    state = TrainerState()
    state.compute_steps(arguments, steps.total)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    strategy = _name(arguments.save_strategy)
    if strategy == "steps":
        interval = int(state.save_steps)
        return Points(-(-steps.total // interval), f"every {interval:,} steps and at the end")
    if strategy == "epoch":
        return Points(_epochs(steps), "after every epoch")
    if strategy == "best":
        return Points(evaluation_points(arguments, steps).count, "after an evaluation that is the best one so far")
    return Points(0, "")


def _name(strategy: object) -> str:
    return str(getattr(strategy, "value", strategy))


def _epochs(steps: StepCounts) -> int:
    """Epochs that a run begins."""
    return -(-steps.total // steps.per_epoch)
