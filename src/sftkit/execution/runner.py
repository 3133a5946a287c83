"""What everyone who runs tasks has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from sftkit.errors import SftkitError

T = TypeVar("T")
R = TypeVar("R")


class WorkerError(SftkitError):
    """A worker process died, by the system's hand or for lack of memory."""


class Runner(Protocol):
    """Runs tasks, which are pure: they may be run again, or elsewhere."""

    @property
    def runs_in_process(self) -> bool:
        """Whether tasks run in this very process."""

    @property
    def shares_local_files(self) -> bool:
        """Whether tasks run where the files of this machine are."""

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Run every task and yield (task, result) as each is done, in no particular order.

        Raises:
            WorkerError: a worker died; what it worked on is named.
            Exception: whatever `function` raises; tasks that are running are broken off, others not begun.
        """
