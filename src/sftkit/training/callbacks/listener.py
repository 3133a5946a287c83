"""Who listens to a training run, and what is heard: steps, numbers, samples and notes, from the main process alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

LogEvent = Mapping[str, Any]
"""`step`, `epoch` and what was measured: `loss`, `grad_norm`, `learning_rate`, `eval_loss`, ..."""


@dataclass(frozen=True)
class Sample:
    """What the model answers to a prompt after `step` optimizer steps; text as the tokenizer decodes it."""

    step: int
    prompt: str
    answer: str


class RunListener(Protocol):
    """Hears what happens in a run, while it happens."""

    def on_note(self, sentence: str) -> None:
        """Something about the run that is said once: what is trained, which attention computes."""

    def on_step(self, step: int, max_steps: int) -> None:
        """So many optimizer steps are done, of so many; first heard before the first step."""

    def on_log(self, event: LogEvent) -> None:
        """A log event, as it is written to `training_logs.jsonl`."""

    def on_sample(self, sample: Sample) -> None:
        """The model has answered a sample prompt."""


class SilentListener:
    """The listener of a run to which nobody listens."""

    def on_note(self, sentence: str) -> None:
        """Nothing."""

    def on_step(self, step: int, max_steps: int) -> None:
        """Nothing."""

    def on_log(self, event: LogEvent) -> None:
        """Nothing."""

    def on_sample(self, sample: Sample) -> None:
        """Nothing."""
