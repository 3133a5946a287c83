"""Shows progress: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sftkit.cli.console.output import messages
from sftkit.core.progress import Progress as ProgressLike

_SECONDS_BETWEEN_LINES = 10.0


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
    began: float = field(default_factory=time.monotonic)

    def add(self, steps: int, rows: int, tokens: int) -> None:
        self.done += steps
        self.rows += rows
        self.tokens += tokens

    def rates(self) -> str:
        seconds = max(time.monotonic() - self.began, 1e-3)
        parts = [f"{self.rows:,} rows", f"{self.rows / seconds:,.0f} rows/s"]
        if self.tokens:
            parts.append(f"{self.tokens / seconds:,.0f} tokens/s")
        return ", ".join(parts)


class ProgressBar:
    """A progress bar with rates and the time left."""

    def __init__(self) -> None:
        self._counter = _Counter()
        self._console: Console = messages()
        self._bar: Progress | None = None

    def begin(self, stage: str, total: int) -> None:
        """Show a new bar."""
        self._counter = _Counter(stage, total)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._bar.add_task(stage, total=max(total, 1), rates="")
        self._bar.start()

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Move the bar."""
        self._counter.add(steps, rows, tokens)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=steps, rates=self._counter.rates())

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ProgressLines:
    """A line every ten seconds."""

    def __init__(self) -> None:
        self._counter = _Counter()
        self._last = time.monotonic()

    def begin(self, stage: str, total: int) -> None:
        """Start counting; a short stage prints nothing."""
        self._counter = _Counter(stage, total)
        self._last = time.monotonic()

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Print a line if ten seconds have passed."""
        self._counter.add(steps, rows, tokens)
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            share = self._counter.done / max(self._counter.total, 1)
            left = (now - self._counter.began) * (1 / share - 1) if share else 0.0
            sys.stderr.write(f"{self._counter.stage}: {share:.0%}, {self._counter.rates()}, {left:,.0f} s left\n")
            sys.stderr.flush()

    def end(self) -> None:
        """Do nothing: the lines are complete."""
