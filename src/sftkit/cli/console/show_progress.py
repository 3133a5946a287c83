"""Shows progress: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sftkit.cli.console.output import messages
from sftkit.cli.console.text_lines import duration
from sftkit.core.progress import Progress as ProgressLike

_SECONDS_BETWEEN_LINES, _MOST_SECONDS_BETWEEN_LINES = 10.0, 300.0
_LINES_PER_TIME = 10  # a line when a tenth of the time so far has passed since the last one
_NARROW = 100  # columns of a terminal in which the bar needs the room of the number of rows


def make_progress() -> ProgressLike:
    """Return the progress display that suits standard error."""
    return ProgressBar() if sys.stderr.isatty() else ProgressLines()


@dataclass
class _Counter:
    """Counts the progress of one stage."""

    stage: str = ""
    total: int = 0
    done: int = 0
    rows: int = 0
    tokens: int = 0
    began: float = 0.0

    def add(self, steps: int, rows: int, tokens: int) -> None:
        self.done += steps
        self.rows += rows
        self.tokens += tokens

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.began, 1e-3)

    def rates(self) -> list[str]:
        seconds = self.seconds
        rates = [f"{self.rows / seconds:,.0f} rows/s"] if self.rows else []
        return [*rates, f"{self.tokens / seconds:,.0f} tokens/s"] if self.tokens else rates

    def rows_and_rates(self) -> list[str]:
        return [f"{self.rows:,} rows", *self.rates()] if self.rows else []


class ProgressBar:
    """A progress bar with rates and the time left."""

    def __init__(self) -> None:
        self._counter = _Counter()
        self._console: Console = messages()
        self._bar: Progress | None = None

    def begin(self, stage: str, total: int) -> None:
        """Show a new bar."""
        self._counter = _Counter(stage, total, began=time.monotonic())
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, transient=True, expand=True)
        self._bar.add_task(stage, total=max(total, 1), rates="")
        self._bar.start()

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Move the bar."""
        self._counter.add(steps, rows, tokens)
        if self._bar is not None:
            counter = self._counter
            rates = counter.rates() if self._console.width < _NARROW else counter.rows_and_rates()
            self._bar.update(self._bar.task_ids[0], advance=steps, rates=", ".join(rates))

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ProgressLines:
    """A line after ten seconds, and then at intervals that grow with the time so far, up to five minutes."""

    def __init__(self) -> None:
        self._counter = _Counter()
        self._next = 0.0

    def begin(self, stage: str, total: int) -> None:
        """Start counting; a short stage prints nothing."""
        self._counter = _Counter(stage, total, began=time.monotonic())
        self._next = _SECONDS_BETWEEN_LINES

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Print a line if it is time for one."""
        counter = self._counter
        counter.add(steps, rows, tokens)
        seconds = counter.seconds
        if seconds >= self._next:
            wait = min(max(seconds / _LINES_PER_TIME, _SECONDS_BETWEEN_LINES), _MOST_SECONDS_BETWEEN_LINES)
            self._next = seconds + wait
            share = counter.done / max(counter.total, 1)
            left = [f"{duration(round(seconds * (1 / share - 1)))} left"] if share else []
            sys.stderr.write(f"{counter.stage}: {', '.join([f'{share:.0%}', *counter.rows_and_rates(), *left])}\n")
            sys.stderr.flush()

    def end(self) -> None:
        """Do nothing: the lines are complete."""
