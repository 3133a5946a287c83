"""Where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Someone who shows progress. `sftkit.cli.console` has the implementations."""

    def begin(self, stage: str, total: int) -> None:
        """A stage begins; its steps add up to `total`."""

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Some steps of the stage are done, and with them so many rows and tokens."""

    def end(self) -> None:
        """The stage is done."""


@contextmanager
def progress_stage(progress: Progress, stage: str, total: int) -> Iterator[None]:
    """One stage, from its beginning to its end, whichever way it ends."""
    progress.begin(stage, total)
    try:
        yield
    finally:
        progress.end()


class SilentProgress:
    """Shows nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Stopwatch:
    """Seconds spent on each of several things that are done one after another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """What was done since the last lap was this."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


def sum_seconds(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by name, over several processes or units."""
    total: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            total[name] = total.get(name, 0.0) + seconds
    return total
