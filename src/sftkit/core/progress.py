"""Progress of long work, and the time that each part of it takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


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
