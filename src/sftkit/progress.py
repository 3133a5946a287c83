"""What long work tells about itself while it runs."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Someone who shows progress. `sftkit.console` has the implementations."""

    def begin(self, stage: str, total: int) -> None:
        """A stage begins; its steps add up to `total`."""

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Some steps of the stage are done, and with them so many rows and tokens."""

    def end(self) -> None:
        """The stage is done."""


class Silent:
    """Shows nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
