"""Shows a training run: a bar on a terminal, otherwise a line per log event; samples, and a summary at the end."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from sftkit.cli.console.reports.training.show_loss_parts import evaluation_parts, report_parts
from sftkit.cli.console.show_phases import Phases
from sftkit.cli.console.text_lines import duration
from sftkit.cli.console.time_left import TimeLeft
from sftkit.core.escape import visible_parts
from sftkit.training.callbacks.listener import LogEvent, RunListener, Sample
from sftkit.training.metrics.evaluation_metrics import set_of_metric
from sftkit.training.metrics.nonfinite_losses import NonfiniteLosses
from sftkit.training.training_report import TrainingReport

_SHOWN = {
    "loss": "loss {:.4f}",
    "eval_loss": "eval loss {:.4f}",
    "eval_perplexity": "perplexity {:,.4g}",
    "learning_rate": "learning rate {:.2e}",
    "grad_norm": "gradient norm {:.3g}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "mfu": "MFU {:.1%}",
}
_FIRST_STEP = "first step"
_ON_BAR = ("loss", "tokens_per_second")


@contextmanager
def show_training(console: Console, phases: Phases) -> Iterator[RunListener]:
    """Provide the listener that suits a console on standard error, and remove its bar at the end.

    Args:
        console: prints the messages of the run.
        phases: shows on the same console what happens before the first step.
    """
    if not sys.stderr.isatty():
        yield TrainingLines(console, phases)
        return
    bar = TrainingBar(console, phases)
    try:
        yield bar
    finally:
        bar.close()


class TrainingLines:
    """Prints a line per log event and a block per sample."""

    def __init__(self, console: Console, phases: Phases) -> None:
        self._console, self._phases = console, phases
        self._has_begun = False
        self._time = TimeLeft()

    def on_phase(self, phase: str) -> None:
        """Show what happens before the first step."""
        self._phases.show(phase)

    def on_note(self, sentence: str) -> None:
        """Print a note."""
        self._console.print(_safe(sentence))

    def on_step(self, step: int, max_steps: int) -> None:
        """Show that the first step takes long if it does; later, log events show the progress."""
        self._time.step(step, max_steps)
        if self._has_begun:
            self._phases.hide()
        else:
            self._phases.show(_FIRST_STEP)
            self._has_begun = True

    def on_log(self, event: LogEvent) -> None:
        """Print a line if the event has a loss."""
        if "eval_loss" in event:
            self._time.skip()
            self._console.print(event_line(event, self._time.max_steps))
            parts = evaluation_parts(event)
            if parts is not None:
                self._console.print(parts)
        elif "loss" in event:
            self._console.print(event_line(event, self._time.max_steps, self._time.estimate()))

    def on_sample(self, sample: Sample) -> None:
        """Print a prompt and the model's answer."""
        self._time.skip()
        self._console.print(sample_text(sample))


class TrainingBar(TrainingLines):
    """A progress bar with the last loss, tokens per second and the time left; the rest is printed above it."""

    def __init__(self, console: Console, phases: Phases) -> None:
        super().__init__(console, phases)
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console)

    def on_step(self, step: int, max_steps: int) -> None:
        """Move the bar; the first call shows it, at the step from which the run starts or resumes."""
        self._time.step(step, max_steps)
        if not self._progress.task_ids:
            self._phases.hide()
            self._progress.add_task("", total=max_steps, completed=step, numbers=_FIRST_STEP, left="")
            self._progress.start()
            return
        task = self._progress.tasks[0]
        numbers = "" if task.fields["numbers"] == _FIRST_STEP else task.fields["numbers"]
        left = self._time.estimate()
        shown_left = f"{duration(round(left))} left" if left is not None else ""
        self._progress.update(task.id, completed=step, numbers=numbers, left=shown_left)

    def on_log(self, event: LogEvent) -> None:
        """Show the numbers of training on the bar, and those of an evaluation as a line."""
        if "eval_loss" in event:
            super().on_log(event)
        elif "loss" in event and self._progress.task_ids:
            self._progress.update(self._progress.task_ids[0], numbers=", ".join(_numbers(event, _ON_BAR)))

    def close(self) -> None:
        """Stop the bar where it is."""
        self._progress.stop()


def event_line(event: Mapping[str, Any], max_steps: int = 0, left: float | None = None) -> Text:
    """Format a log event as one line.

    Args:
        event: the event.
        max_steps: all steps of the run; 0 if it has none.
        left: seconds that are left, if they are known.
    """
    sets = {name: event[key] for key in event if (name := set_of_metric(key)) is not None}
    shown = [*_numbers(event, tuple(_SHOWN)), *(f"{name} {_loss(loss)}" for name, loss in sets.items())]
    numbers = ", ".join([*shown, f"time left {duration(round(left))}"] if left is not None else shown)
    of = f" of {max_steps:,}" if max_steps else ""
    return Text(f"step {event.get('step', 0):,}{of}, epoch {event.get('epoch') or 0:.2f}: {numbers}")


def sample_text(sample: Sample) -> Text:
    """Format a sample, with control characters and invisible ones escaped."""
    return Text.assemble(
        (f"sample at step {sample.step}\n", "bold"),
        ("  prompt: ", "dim"), _safe(_indented(sample.prompt)), "\n",
        ("  answer: ", "dim"), _safe(_indented(sample.answer)),
    )  # fmt: skip


def print_training(report: TrainingReport, console: Console) -> None:
    """Print the summary of a run as a table, without values that are unknown."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _summary(report):
        table.add_row(name, Text(value))
    console.print(table)
    parts = report_parts(report.parts)
    if parts is not None:
        console.print()
        console.print(parts)


def print_merge(folder: Path, console: Console) -> None:
    """Print where a model was saved into which adapters were merged."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("written to", Text(str(folder)))
    console.print(table)


def _summary(report: TrainingReport) -> Iterator[tuple[str, str]]:
    rate, trained_rate = (
        count / report.seconds if report.seconds else 0.0 for count in (report.tokens, report.trained_tokens)
    )
    if report.steps:
        yield "steps", f"{report.steps:,} ({report.epochs:.2f} epochs)"
    if report.stopped_early is not None:
        yield "stopped early", report.stopped_early
    yield "time", f"{report.seconds:,.1f} s"
    if report.steps:
        yield "tokens", f"{report.tokens:,} tokens ({report.trained_tokens:,} trained)"
        yield "speed", f"{rate:,.0f} tokens/s ({trained_rate:,.0f} trained)"
    if report.padding_share is not None:
        yield "padding", f"{report.padding_share:.1%}"
    if report.mfu is not None:
        yield "MFU", f"{report.mfu:.1%}"
    if report.first_loss is not None and report.last_loss is not None:
        losses = dict.fromkeys(map(_loss, (report.first_loss, report.last_loss)))  # one, after one log event
        yield "training loss", " -> ".join(losses)
    if report.nonfinite.first_step:
        yield "not finite", _steps(report.nonfinite)
    if report.eval_loss is not None:
        yield "validation loss", f"{_loss(report.eval_loss)} (perplexity {report.eval_perplexity:,.4g})"
    if report.eval_losses:
        yield "", ", ".join(f"{name} {_loss(loss)}" for name, loss in report.eval_losses.items())
    if report.peak_memory:
        yield "peak memory", f"{report.peak_memory / 2**30:,.2f} GiB ({'GPU' if report.on_gpu else 'main memory'})"
    yield "written to", str(report.output_dir)


def _steps(losses: NonfiniteLosses) -> str:
    if losses.in_a_row == losses.last_step - losses.first_step + 1:
        return f"the loss of steps {losses.first_step:,} to {losses.last_step:,}"
    return f"the loss of some steps between {losses.first_step:,} and {losses.last_step:,}"


def _loss(value: float | None) -> str:
    return f"{value:.4f}" if value is not None and math.isfinite(value) else "not finite"


def _numbers(event: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    """Format the values of an event; a loss of null stands for one that is not finite."""
    for key in keys:
        if isinstance(event.get(key), int | float):
            yield _SHOWN[key].format(event[key])
        elif key in event and key.endswith("loss"):
            yield f"{key.replace('_', ' ')} not finite"


def _indented(text: str) -> str:
    return text.replace("\n", "\n          ")


def _safe(text: str) -> Text:
    return Text.assemble(*((part.text, "magenta") if part.altered else part.text for part in visible_parts(text)))
