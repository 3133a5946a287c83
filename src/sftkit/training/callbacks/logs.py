"""Where log events of a run go: always `training_logs.jsonl` and the listener, and Aim on request."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftkit.core.error_text import single_line
from sftkit.errors import OutputError, TrainingError
from sftkit.training.callbacks.listener import LogEvent, RunListener
from sftkit.training.distributed import is_main_process, warn_on_main_process
from sftkit.training.step_counts import count_steps

_log = logging.getLogger(__name__)


METADATA = "experiment_metadata"
"""Name of what the user says about a run, in the log and in Aim."""


class JsonLinesFile:
    """A file with one JSON object per line, each with the `step` at which it was written.

    A new run replaces the file. A run that resumes from a checkpoint keeps the lines up to the step of the checkpoint
    and appends to them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, step: int) -> None:
        """Keep only the lines up to `step`, the number of steps done when the run begins.

        Raises:
            OutputError: the file cannot be written.
        """
        kept = [line for line in self._lines() if _step_of(line) <= step] if step else []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one line and flush it to the operating system."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")

    def _lines(self) -> list[str]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return text.split("\n")  # splitlines() would also split at U+2028 and others, which JSON does not escape


def _step_of(line: str) -> float:
    """The step of a line; infinity for a line that a kill cut short, so that it is never kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def log_event(state: TrainerState, logs: Mapping[str, Any]) -> dict[str, Any]:
    """A log event with `step` and `epoch` first; numbers that are not finite become None."""
    return {"step": state.global_step, "epoch": state.epoch, **finite_or_null(logs)}


def finite_or_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """Logged values as JSON can hold them; numbers that are not finite become None."""
    return {key: _plain(value) for key, value in values.items()}


class JsonLinesLogger(TrainerCallback):
    """Writes each log event to a file of JSON lines and passes it to a listener, in the main process only.

    The first line of a run has what the user says about it (`exp_metadata`), if anything.
    """

    def __init__(
        self, path: Path, on_log: Callable[[LogEvent], None], metadata: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self._file = JsonLinesFile(path)
        self._on_log = on_log
        self._metadata = dict(metadata)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop the lines after the step at which this run begins."""
        if state.is_world_process_zero:
            self._file.begin(state.global_step)
            if self._metadata and not state.global_step:
                self._file.append({"step": 0, METADATA: self._metadata})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one line and call the listener."""
        if logs is not None:
            self.add(state, logs)

    def add(self, state: TrainerState, entries: Mapping[str, Any]) -> None:
        """Write one line, which may say what trackers cannot log, and call the listener."""
        if state.is_world_process_zero:
            event = log_event(state, entries)
            self._file.append(event)
            self._on_log(event)


class StepReporter(TrainerCallback):
    """Reports to a listener how many steps a run has and has done, in the main process only."""

    def __init__(self, listener: RunListener) -> None:
        self._listener = listener

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report how many steps there are, and at which the run begins: 0, or that of its checkpoint."""
        loader = kwargs.get("train_dataloader")
        if state.is_world_process_zero and loader is not None:
            steps = replace(count_steps(len(loader), args), total=state.max_steps)
            done = f", {state.global_step:,} of them done before" if state.global_step else ""
            self._listener.on_note(f"steps: {steps}{done}")
        self._report(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report one more step."""
        self._report(state)

    def _report(self, state: TrainerState) -> None:
        if state.is_world_process_zero:
            self._listener.on_step(state.global_step, state.max_steps)


class AimLogger(TrainerCallback):
    """Tracks the numbers of each log event in an Aim run."""

    def __init__(self, run: Any, metadata: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._run = run
        self._metadata = dict(metadata)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the training arguments, without the values of access tokens."""
        self._run["hparams"] = args.to_sanitized_dict()
        if self._metadata:
            self._run[METADATA] = self._metadata

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Track every finite number, those of evaluations under the subset "eval"."""
        for key, value in log_event(state, logs or {}).items():
            if isinstance(value, int | float) and key not in ("step", "epoch"):
                subset = "eval" if key.startswith("eval_") else "train"
                name = key.removeprefix("eval_").removeprefix("train_")
                self._run.track(value, name=name, step=state.global_step, epoch=state.epoch, context={"subset": subset})

    def close(self) -> None:
        """End the Aim run."""
        self._run.close()


def make_aim_logger(
    repo: str | None, experiment: str | None, metadata: Mapping[str, Any] = MappingProxyType({})
) -> AimLogger | None:
    """A callback that logs to an Aim repository; None if `repo` is empty or Aim is not installed.

    Raises:
        TrainingError: the repository cannot be opened.
    """
    if not repo or not is_main_process():
        return None
    try:
        import aim
    except ImportError:
        warn_on_main_process(
            _log,
            "aim_repo is set, but Aim is not installed (pip install 'sftkit[aim]'): nothing is logged to it",
        )
        return None
    try:
        return AimLogger(aim.Run(repo=repo, experiment=experiment or None), metadata)
    except Exception as error:  # Aim does not document which exceptions it raises
        raise TrainingError(f"aim_repo: {repo} cannot be opened: {single_line(error)}") from error


def _plain(value: Any) -> Any:
    """A logged value as JSON can hold it."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
