"""Progress of long work, and the time that each part of it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Done:
    """What a task has done since it began."""

    steps: int = 0
    """In the measure of the stage's total, such as bytes of source."""
    rows: int = 0
    tokens: int = 0


Report = Callable[[Done], None]
"""Tells what the running task has done so far."""


def no_report(done: Done) -> None:
    """Ignore what a task has done."""


class Progress(Protocol):
    """Shows progress. `sftkit.cli.console` has the implementation of the commands."""

    def begin(self, stage: str, total: int) -> None:
        """Begin a stage of `total` steps."""

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Record finished steps of the stage, and the rows and tokens in them."""

    def end(self) -> None:
        """End the stage."""


@contextmanager
def progress_stage(progress: Progress, stage: str, total: int) -> Iterator[None]:
    """Begin a stage, and end it when the block ends, also by an exception."""
    progress.begin(stage, total)
    try:
        yield
    finally:
        progress.end()


class SilentProgress:
    """Shows nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Do nothing."""

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class TaskProgress:
    """Advances a stage while its tasks run and when they are finished. No step counts twice.

    Example:
        >>> class Printed(SilentProgress):
        ...     def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        ...         print(steps, rows, tokens)
        >>> shown = TaskProgress(Printed())
        >>> shown.report("a", Done(40, rows=4), size=100)
        40 4 0
        >>> shown.report("a", Done(10, rows=1), size=100)  # it started again
        >>> shown.report("a", Done(130, rows=9), size=100)
        60 5 0
        >>> shown.finish("a", Done(100, rows=11, tokens=70))
        0 2 70
        >>> shown.report("a", Done(50), size=100)  # a late report
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._running: dict[Hashable, Done] = {}
        self._finished: set[Hashable] = set()

    def report(self, task: Hashable, done: Done, size: int) -> None:
        """Record what a running task has done.

        Args:
            task: identifies the task.
            done: what it says; less than before if the task started again.
            size: the steps of the whole task, of which it can have done no more.
        """
        before = self._running.get(task, Done())
        if task in self._finished or done.steps <= before.steps:
            return
        self._advance(task, before, Done(max(before.steps, min(done.steps, size)), done.rows, done.tokens))

    def finish(self, task: Hashable, done: Done) -> None:
        """Record the whole of a task that is finished."""
        self._advance(task, self._running.get(task, Done()), done)
        del self._running[task]
        self._finished.add(task)

    def _advance(self, task: Hashable, before: Done, now: Done) -> None:
        self._running[task] = now
        steps, rows, tokens = now.steps - before.steps, now.rows - before.rows, now.tokens - before.tokens
        self._progress.advance(steps, rows=rows, tokens=tokens)


class Stopwatch:
    """Measures the seconds that consecutive tasks take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to a task."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


def sum_seconds(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add up seconds by name, over several processes or units."""
    total: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            total[name] = total.get(name, 0.0) + seconds
    return total
