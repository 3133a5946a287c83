"""The interface of everything that runs tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from sftkit.core.progress import Done, Report
from sftkit.errors import SftkitError

T = TypeVar("T")
R = TypeVar("R")


class WorkerError(SftkitError):
    """A worker process died, perhaps for lack of memory."""


class Runner(Protocol):
    """Runs tasks. Tasks have no side effects that matter, so they may be run twice, or on another machine."""

    @property
    def runs_in_process(self) -> bool:
        """Whether tasks run in this process."""

    @property
    def shares_local_files(self) -> bool:
        """Whether tasks can read the files of this machine."""

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Run every task and yield (task, result) as each is done, in no particular order.

        Raises:
            WorkerError: a worker died; the message names its task.
            Exception: whatever `function` raises; running tasks are then ended, and no others are started.
        """

    def run_reporting(
        self, function: Callable[[T, Report], R], tasks: Sequence[T], on_report: Callable[[T, Done], None]
    ) -> Iterator[tuple[T, R]]:
        """As `run`, and show what tasks do before they are finished, where that is possible.

        Args:
            function: gets a task, and may call the report as often as it likes with what it has done of the task.
            tasks: the tasks.
            on_report: called in this process with a task and its last report, a few times a second at most; perhaps
                also after the task's result, or never.
        """


def without_report(function: Callable[[T], R], task: T, report: Report) -> R:
    """Run a task that reports nothing."""
    return function(task)
