"""Ends this process if a template hangs in one step of the interpreter, which nothing in this process can interrupt.

Comparing lists that are nested a hundred times, or multiplying numbers of a hundred million digits, are single steps:
no timer, signal or other thread gets a turn. A tiny second process (`watchdog_process`) watches this one, on Linux.
Both share some memory: this process notes there when a rendering begins and ends, and each tick of its own timer. If it
uses much processor time within one rendering and no tick comes, the watchdog writes the error message and ends it.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from sftkit.sandbox.watchdog_process import MEMORY, PATH_AT

MAX_STEP_SECONDS = 15.0
"""Processor time of one step of a template, in seconds."""

_RENDERING, _TICKS, _ROW = range(3)

_log = logging.getLogger(__name__)


class Watchdog:
    """What this process shares with its watchdog, which starts with the first rendering in the main thread."""

    def __init__(self) -> None:
        self._report = ""
        self._until_end = -1
        self._reset()

    def _reset(self) -> None:
        """Use memory of this process alone; a forked process has no watchdog yet."""
        if self._until_end >= 0:
            os.close(self._until_end)  # the parent's
            self._until_end = -1
        self._descriptor = os.memfd_create("sftkit-watchdog") if sys.platform == "linux" else -1
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, MEMORY)
        self._memory = mmap.mmap(self._descriptor, MEMORY)
        self._slots = memoryview(self._memory)[:PATH_AT].cast("q")
        self._renderings = 0
        self._locate: Callable[[int], tuple[str, int]] | None = None
        self._thread = threading.get_ident() if threading.current_thread() is threading.main_thread() else 0
        self._is_started = sys.platform != "linux"

    def enter(self) -> None:
        """Note that a rendering begins."""
        if threading.get_ident() == self._thread:
            if not self._is_started:
                self._start()
            self._renderings += 1
            self._slots[_RENDERING] = self._renderings

    def leave(self) -> None:
        """Note that it has ended."""
        if threading.get_ident() == self._thread:
            self._slots[_RENDERING] = 0

    def tick(self) -> None:
        """Note that the interpreter takes steps."""
        self._slots[_TICKS] += 1

    def work_on(self, path: str, locate: Callable[[int], tuple[str, int]] | None = None) -> None:
        """Name the source file whose rows are rendered next; "" for none.

        Args:
            path: the file.
            locate: if there are several files, returns the file of a row, and the row's number in it.
        """
        self._locate = locate
        self._name(path)
        self._slots[_ROW] = 0

    def at_row(self, number: int) -> None:
        """Name the row that is rendered next; 0 for none."""
        if self._locate is not None and number:
            path, number = self._locate(number)
            self._name(path)
        self._slots[_ROW] = number

    def _name(self, path: str) -> None:
        content = path.encode(errors="replace")[: MEMORY - PATH_AT - 1] + b"\0"
        self._memory[PATH_AT : PATH_AT + len(content)] = content

    def report_to(self, path: Path) -> None:
        """Have the error message written to a file, for the process that waits for this one."""
        self._report = str(path)

    def _start(self) -> None:
        self._is_started = True
        until_end, self._until_end = os.pipe()  # the second one is never closed: it closes when this process ends
        script = str(Path(__file__).with_name("watchdog_process.py"))
        values = (os.getpid(), MAX_STEP_SECONDS, self._report, int(_exits_on_hangup()))
        try:
            os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", script, *map(str, values)],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, self._descriptor, 0), (os.POSIX_SPAWN_DUP2, until_end, 1)],
                setpgroup=0,  # Ctrl-C ends this process first
            )
        except OSError as error:
            _log.info("no watchdog can be started for templates that hang: %s", error)
        finally:
            os.close(until_end)


def _exits_on_hangup() -> bool:
    """Let SIGHUP, which ends a process anyway, end this one at once and with exit code 1, whatever it is doing.

    That is the C library's `_exit`, called with the number of the signal. Nothing changes if the signal is ignored
    (`nohup`) or handled: the watchdog then kills the process.
    """
    if signal.getsignal(signal.SIGHUP) != signal.SIG_DFL:
        return False
    import ctypes

    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal(int(signal.SIGHUP), ctypes.cast(library._exit, ctypes.c_void_p))
    return True


@cache
def watchdog() -> Watchdog:
    """The watchdog of this process."""
    made = Watchdog()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=made._reset)
    return made
