"""What long work tells about itself while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Someone who shows progress. `sftkit.console` has the implementations."""

    def begin(self, stage: str, total: int) -> None:
        """A stage begins; its steps add up to `total`."""

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Some steps of the stage are done, and with them so many rows and tokens."""

    def end(self) -> None:
        """The stage is done."""


@contextmanager
def shown(progress: Progress, stage: str, total: int) -> Iterator[None]:
    """One stage, from its beginning to its end, whichever way it ends."""
    progress.begin(stage, total)
    try:
        yield
    finally:
        progress.end()


class Silent:
    """Shows nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
