"""The interface through which a training run reports steps, logs, sample answers and notes, in the main process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from sftkit.training.distributed import is_main_process

LogEvent = Mapping[str, Any]
"""`step`, `epoch` and measured values: `loss`, `grad_norm`, `learning_rate`, `eval_loss`, ..."""


@dataclass(frozen=True)
class Sample:
    """The model's answer to a prompt after `step` optimizer steps, as text decoded by the tokenizer."""

    step: int
    prompt: str
    answer: str


class RunListener(Protocol):
    """Receives the events of a run while it happens, in the main process only."""

    def on_note(self, sentence: str) -> None:
        """Receive a fact about the run that is reported once, such as which parameters are trained."""

    def on_step(self, step: int, max_steps: int) -> None:
        """Receive the number of optimizer steps done, and of all steps; first called before the first step."""

    def on_log(self, event: LogEvent) -> None:
        """Receive a log event as written to `training_logs.jsonl`."""

    def on_sample(self, sample: Sample) -> None:
        """Receive an answer to a sample prompt."""


@runtime_checkable
class PhaseListener(Protocol):
    """What a listener has, too, if it is to receive what the run does before the first step, which may take minutes."""

    def on_phase(self, phase: str) -> None:
        """Receive what the run begins to do, such as `loading the model`, instead of what it did before."""


def tell_phase(listener: RunListener | None, phase: str) -> None:
    """Tell a listener what the run begins to do, if it has `on_phase`; in the main process only."""
    if isinstance(listener, PhaseListener) and is_main_process():
        listener.on_phase(phase)


class SilentListener:
    """A listener that ignores every event."""

    def on_note(self, sentence: str) -> None:
        """Do nothing."""

    def on_step(self, step: int, max_steps: int) -> None:
        """Do nothing."""

    def on_log(self, event: LogEvent) -> None:
        """Do nothing."""

    def on_sample(self, sample: Sample) -> None:
        """Do nothing."""
