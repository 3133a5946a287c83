"""Where the numbers of a run go: `training_logs.jsonl` always, Aim when asked for."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftkit.errors import OutputError, TrainingError
from sftkit.training.distributed import is_main_process, warn_once

_log = logging.getLogger(__name__)

LOG_NAME = "training_logs.jsonl"

LogEvent = Mapping[str, Any]
"""`step`, `epoch` and what was measured: `loss`, `grad_norm`, `learning_rate`, `eval_loss`, ..."""


def ignore_event(event: LogEvent) -> None:
    """The listener of a run to which nobody listens."""


def event_of(state: TrainerState, logs: Mapping[str, Any]) -> dict[str, Any]:
    """A log event in the order it is written, `step` and `epoch` first; what is not finite becomes None."""
    return {"step": state.global_step, "epoch": state.epoch, **{key: _plain(value) for key, value in logs.items()}}


class JsonLinesLog(TrainerCallback):
    """Writes each log event as one JSON object to a line of a file, from the main process alone.

    A run that starts anew replaces the file. A run that resumes from a checkpoint keeps the lines up to its step
    and goes on from there.
    """

    def __init__(self, path: Path, on_log: Callable[[LogEvent], None]) -> None:
        self.path = path
        self._on_log = on_log

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep what is before the first step of this run."""
        if not state.is_world_process_zero:
            return
        kept = [line for line in self._lines() if _step_of(line) <= state.global_step] if state.global_step else []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one line; it is on its way to the disk when this returns."""
        if not state.is_world_process_zero or logs is None:
            return
        event = event_of(state, logs)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        self._on_log(event)

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []


class AimLog(TrainerCallback):
    """Tracks each number of a log event in an Aim run."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the training arguments (they hold no token)."""
        self._run["hparams"] = args.to_sanitized_dict()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Track every finite number, those of an evaluation apart from those of training."""
        for key, value in event_of(state, logs or {}).items():
            if isinstance(value, int | float) and key not in ("step", "epoch"):
                subset = "eval" if key.startswith("eval_") else "train"
                name = key.removeprefix("eval_").removeprefix("train_")
                self._run.track(value, name=name, step=state.global_step, epoch=state.epoch, context={"subset": subset})

    def close(self) -> None:
        """End the Aim run."""
        self._run.close()


def aim_log(repo: str | None, experiment: str | None) -> AimLog | None:
    """A callback that logs to an Aim repository; None when none is asked for, or Aim is not installed.

    Raises:
        TrainingError: the repository cannot be opened.
    """
    if not repo or not is_main_process():
        return None
    try:
        import aim
    except ImportError:
        warn_once(_log, "aim_repo is given, but Aim is not installed (pip install 'sftkit[aim]'): it gets no logs")
        return None
    try:
        return AimLog(aim.Run(repo=repo, experiment=experiment or None))
    except Exception as error:  # Aim documents no errors of its own
        raise TrainingError(f"aim_repo: {repo} cannot be opened: {' '.join(str(error).split())}") from error


def _plain(value: Any) -> Any:
    """A logged value as JSON has it."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _step_of(line: str) -> float:
    """The step of a written event; a line that was cut short by a kill comes after all."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
