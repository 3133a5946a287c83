"""How tasks are run: in this process, or in a pool of processes that start fresh (spawn)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from sftkit.errors import SftkitError
from sftkit.torchless import import_transformers_without_torch

T = TypeVar("T")
R = TypeVar("R")

_QUEUED_PER_WORKER = 2


class WorkerError(SftkitError):
    """A worker process died, by the system's hand or for lack of memory."""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[tuple[T, R]]:
    """Run every task and yield (task, result) as each is done, in no particular order.

    With one worker the tasks run here, in order. With more, `function` and the tasks must be picklable; only a few
    tasks are handed out ahead of the workers.

    Raises:
        WorkerError: a worker died; the tasks that it may have held are named.
        Exception: whatever `function` raises; the tasks that are still waiting are not begun.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            yield task, function(task)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=import_transformers_without_torch)
    waiting = list(reversed(tasks))
    running: dict[Future[R], T] = {}
    finished = False
    try:
        while waiting or running:
            with _interrupts_held_back():
                while waiting and len(running) < workers * _QUEUED_PER_WORKER:
                    task = waiting.pop()
                    running[pool.submit(function, task)] = task
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running[future], future.result()
                del running[future]
        finished = True
    except BrokenProcessPool:
        held = ", ".join(str(task) for task in running.values())
        raise WorkerError(f"a worker process died (out of memory?) while it worked on one of: {held}") from None
    finally:
        if not finished:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let processes be started whole, and deaf to Ctrl-C: in a terminal it reaches every process, but only this one is
    to answer, and then it ends the workers.

    Processes inherit the signal mask they are started under, which keeps interrupts from them; here an interrupt that
    comes meanwhile (another thread may take it in spite of the mask) is raised when the block is left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda number, _: held.append(number)) for number in signals]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)
    if held:
        raise KeyboardInterrupt
