"""How processes are started here."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""Forked from a server that holds nothing but what all workers need; elsewhere, each started fresh."""

SMALL_SOURCE = 4 << 20
"""Bytes of source below which starting worker processes takes longer than it saves."""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def deferred_interrupts() -> Iterator[None]:
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
