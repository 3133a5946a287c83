"""Runs tasks in this process, or in a pool of worker processes.

On Linux, workers are forked from a server (Python's `forkserver`) that has imported and loaded what every worker
needs; see `sftkit.preprocessing.worker_warmup`. Elsewhere each starts fresh (`spawn`) and does so itself.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait as wait_for_sentinels
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeVar

from sftkit.core.progress import Done, Report
from sftkit.execution.processes import START_METHOD, deferred_interrupts
from sftkit.execution.runner import WorkerError, without_report
from sftkit.execution.task_reports import ReportFiles, limited
from sftkit.sandbox.watchdog import watchdog

T = TypeVar("T")
R = TypeVar("R")

_QUEUED_PER_WORKER = 2
_ENDED = ".ended"  # suffix of a note: why the watchdog has ended a worker
_LOOK_EVERY = 0.5  # seconds
_TERMINATED = (None, 0, -signal.SIGTERM)
_COLLECT_EVERY = 50_000  # allocations; rows are many small objects without cycles


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Collect garbage less often, and skip the objects that exist already."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


_python: Any = multiprocessing.get_context(START_METHOD)
_starting = threading.Lock()  # threads may start processes at the same time


class _Process(_python.Process):  # type: ignore[misc]  # which class it is depends on the platform
    """A process that does not import the script that started it, so that needs no `if __name__ == "__main__"`."""

    def start(self) -> None:
        with _starting:
            main = sys.modules["__main__"]
            hidden = ModuleType("__main__")
            vars(hidden).update(vars(main), __file__=None, __spec__=None)  # Python imports it by these two
            sys.modules["__main__"] = hidden
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main


class _Context(BaseContext):
    """Starts processes as Python does, and remembers all of them, even those that die at once."""

    def __init__(self) -> None:
        self._made: list[BaseProcess] = []

    def Process(self, *args: Any, **options: Any) -> BaseProcess:  # noqa: N802 (the pool calls this name)
        self._made.append(_Process(*args, **options))
        return self._made[-1]

    def get_context(self, method: str | None = None) -> Any:
        return _python.get_context(method) if method else _python

    def get_start_method(self, allow_none: bool = False) -> str:
        return START_METHOD

    @property
    def started(self) -> Iterator[BaseProcess]:
        """All processes that were started, dead ones too."""
        return (process for process in self._made if process.pid is not None)


class WorkerPool:
    """A pool of worker processes; with a count of 1, tasks run in this process instead.

    Use it in a `with` block, at whose end the workers end.
    """

    shares_local_files = True

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        self._context = _Context()
        self._notes = tempfile.TemporaryDirectory(prefix="sftkit-workers-")
        self._reports = ReportFiles(Path(self._notes.name))

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_workers()
        self._notes.cleanup()

    @property
    def runs_in_process(self) -> bool:
        """Whether tasks run in this very process."""
        return self._count <= 1

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Run every task and yield (task, result) as each is done, in no particular order.

        With one worker, or one task and no worker yet, tasks run in this process, in order. Otherwise `function` and
        the tasks must be picklable; only a few tasks are queued at a time.

        Raises:
            WorkerError: a worker died; the message names its task.
            Exception: whatever `function` raises; running tasks are then ended, and no others are started.
        """
        return self.run_reporting(partial(without_report, function), tasks, lambda task, done: None)

    def run_reporting(
        self, function: Callable[[T, Report], R], tasks: Sequence[T], on_report: Callable[[T, Done], None]
    ) -> Iterator[tuple[T, R]]:
        """As `run`, with reports as in `Runner.run_reporting`.

        Raises:
            WorkerError, Exception: as `run`.
        """
        if self._count <= 1 or (len(tasks) <= 1 and self._pool is None):
            with rare_garbage_collection():
                for task in tasks:
                    yield task, function(task, limited(partial(on_report, task)))
            return
        self._reports.clear()
        waiting = list(reversed(list(enumerate(tasks))))
        running: dict[Future[R], T] = {}
        finished = False
        try:
            while waiting or running:
                pool = self._submit(function, waiting, running)
                done, _ = wait(running, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED)
                for number, report in self._reports.read():
                    on_report(tasks[number], report)
                if not done and self._has_dead_worker():
                    pool.submit(int)  # the pool overlooks a worker that dies while others start, until a task comes
                for future in done:
                    yield running[future], future.result()
                    del running[future]
            finished = True
        except BrokenProcessPool:
            message = self._message_of_watchdog()
            if message:
                raise WorkerError(message) from None
            task_name = self._task_of_dead_worker(tasks) or f"one of: {', '.join(map(str, running.values()))}"
            raise WorkerError(
                f"a worker process died (out of memory?) while it worked on {task_name}; run the command again, with "
                "a smaller num_workers if memory is short"
            ) from None
        finally:
            if not finished:
                self._end_workers()

    def _submit(
        self, function: Callable[[T, Report], R], waiting: list[tuple[int, T]], running: dict[Future[R], T]
    ) -> ProcessPoolExecutor:
        """Give tasks that wait to the workers, which start with the first ones."""
        with deferred_interrupts():
            if self._pool is None:
                prepare = partial(_prepare_worker, self._notes.name)
                self._pool = ProcessPoolExecutor(self._count, mp_context=self._context, initializer=prepare)
            try:
                while waiting and len(running) < self._count * _QUEUED_PER_WORKER:
                    number, task = waiting.pop()
                    run = partial(_run_noted, self._notes.name, number, function)
                    running[self._pool.submit(run, task)] = task
            except (EOFError, ConnectionError):
                raise WorkerError(
                    "a worker process died while it started (out of memory?); run the command again, with a smaller "
                    "num_workers if memory is short"
                ) from None
            return self._pool

    def _has_dead_worker(self) -> bool:
        """Return whether a worker has ended; its exit code is left for the pool to read."""
        return bool(wait_for_sentinels([worker.sentinel for worker in self._context.started], timeout=0))

    def _message_of_watchdog(self) -> str | None:
        """Return the error message of the watchdog that ended a worker, if one did."""
        found = next(Path(self._notes.name).glob(f"*{_ENDED}"), None)
        return found.read_text(encoding="utf-8") if found is not None else None

    def _end_workers(self) -> None:
        """End the workers at once: they are done, or their results are not needed."""
        for worker in self._context.started:
            worker.terminate()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._context = _Context()

    def _task_of_dead_worker(self, tasks: Sequence[T]) -> str | None:
        """Name the task of the worker that died; the pool then ends the others."""
        if self._pool is not None:
            self._pool.shutdown()  # its thread reads the exit codes, which can be read only once
        for worker in self._context.started:
            note = Path(self._notes.name, str(worker.pid))
            if worker.exitcode not in _TERMINATED and note.exists():
                number = note.read_text()  # empty if the worker died before it had written it
                return str(tasks[int(number)]) if number else None
        return None


def _run_noted(notes: str, number: int, function: Callable[[T, Report], R], task: T) -> R:
    """Run a task after writing its number to a file, so that it can be named if this process dies."""
    note = Path(notes, str(os.getpid()))
    note.write_text(str(number))
    result = function(task, limited(partial(ReportFiles(Path(notes)).write, number)))
    note.unlink()
    return result


def _prepare_worker(notes: str) -> None:
    """Prepare a worker. It will end when the process that started it ends, even if that one is killed.

    Args:
        notes: folder for notes to the process that started it.
    """
    from sftkit.core.startup.transformers_import import import_transformers_without_torch

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the workers are the parallelism
    watchdog().report_to(Path(notes, f"{os.getpid()}{_ENDED}"))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked process would do what its parent does, and wait forever
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()
    import_transformers_without_torch()
    logging.getLogger("sftkit").setLevel(logging.ERROR)  # what it loads was loaded when the run was planned
    collect_garbage_rarely()


def collect_garbage_rarely() -> None:
    """From now on, collect garbage less often, and skip the objects that exist already."""
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)


def _exit_with(sentinel: int) -> None:
    wait_for_sentinels([sentinel])
    os._exit(1)
