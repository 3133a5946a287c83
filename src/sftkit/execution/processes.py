"""How worker processes are started."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""On Linux, workers are forked from a server that has loaded what all of them need; elsewhere each starts fresh."""

SMALL_SOURCE = 4 << 20
"""Bytes of source below which starting worker processes takes longer than it saves."""


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Start processes in this block so that they ignore Ctrl-C and are not started half.

    In a terminal, Ctrl-C reaches every process, but only this one must react, by ending the workers. Processes inherit
    the signal mask of the block, which blocks interrupts. A signal that arrives meanwhile (another thread may get it in
    spite of the mask) is delivered at the end of the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda number, _: received.append(number)) for number in signals]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it was not set by Python
        for arrived in received:
            signal.raise_signal(arrived)
