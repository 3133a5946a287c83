"""What a template may cost: processor time, memory and output of one rendering.

Templates come with tokenizers and data configs of strangers. The sandbox of Jinja keeps them from the machine's files,
not from its processors and memory. Here a rendering that takes too much of either is broken off:

- time: a timer of the process interrupts it. It counts processor time, so that a machine under load changes nothing;
- memory: the address space of the process is bounded while it lasts, so that an allocation fails, not the machine;
- what Python cannot interrupt, for it is one step of the interpreter (`9 ** 9 ** 9`), is refused when it is read
  (`template_steps`).

What is allowed grows with the row. Rows of this many bytes are rare, so theirs are only counted when a limit is met.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import NamedTuple, NoReturn, TypeVar

from sftkit.errors import TokenizerError
from sftkit.sandbox.memory import run_with_cached_memory_limit

MAX_SECONDS = 10.0
"""Processor time of one rendering."""

MAX_SECONDS_PER_MILLION_CHARACTERS = 1.0
"""And for every million characters of its row."""

MAX_MEMORY_BYTES = 2 << 30
"""What a rendering may take of the address space (on Linux)."""

MAX_MEMORY_BYTES_PER_CHARACTER = 128
"""And for every character of its row."""

MAX_OUTPUT_CHARACTERS = 64_000_000
"""Longest text of a rendering."""

MAX_OUTPUT_PER_CHARACTER = 32
"""And for every character of its row."""

T = TypeVar("T")

_TICK = 0.25  # seconds of processor time


class TemplateLimitError(TokenizerError):
    """A template took more than it may. Ends the run: other rows would take as much.

    problem: one sentence. place: `path:row`, once it is known.
    """

    def __init__(self, problem: str, place: str = "") -> None:
        self.problem, self.place = problem, place
        super().__init__(problem, place)

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}, or leave this row out" if self.place else self.problem

    def at(self, place: str) -> TemplateLimitError:
        """The same error with its place known."""
        return TemplateLimitError(self.problem, place)


class _OutOfTimeError(BaseException):
    """The timer ran out. No `Exception`: Jinja swallows those where it computes constants."""


class _Allowance(NamedTuple):
    seconds: float
    memory: int
    output: int

    def for_row(self, characters: int) -> _Allowance:
        """The allowance for a row of so many characters."""
        return _Allowance(
            self.seconds + MAX_SECONDS_PER_MILLION_CHARACTERS * characters / 1e6,
            self.memory + MAX_MEMORY_BYTES_PER_CHARACTER * characters,
            self.output + MAX_OUTPUT_PER_CHARACTER * characters,
        )


def render_within_limits(render: Callable[[], T], row: object) -> T:
    """What `render` gives, unless it takes too much.

    Args:
        render: renders, or compiles, a template; it is called again with more allowed where the row is long.
        row: what is rendered; its characters are counted when a limit is met.

    Raises:
        TemplateLimitError: a limit was met; it names the limit.
        Exception: whatever `render` raises.
    """
    least = _Allowance(MAX_SECONDS, MAX_MEMORY_BYTES, MAX_OUTPUT_CHARACTERS)
    try:
        return _within(least, render)
    except TemplateLimitError:
        allowed = least.for_row(_characters(row))
        if allowed.seconds < 1.1 * least.seconds:
            raise
    return _within(allowed, render)


def _within(allowed: _Allowance, render: Callable[[], T]) -> T:
    try:
        made = _watch().run(allowed.seconds, allowed.memory, render)
    except _OutOfTimeError:
        _refuse(f"took more than {allowed.seconds:.3g} s of processor time", "MAX_SECONDS")
    except MemoryError:
        _refuse(f"took more than {allowed.memory >> 20:,} MiB of memory", "MAX_MEMORY_BYTES")
    if isinstance(made, str) and len(made) > allowed.output:
        _refuse(f"wrote more than {allowed.output:,} characters", "MAX_OUTPUT_CHARACTERS")
    return made


def _refuse(what: str, limit: str) -> NoReturn:
    raise TemplateLimitError(
        f"the template {what} at one rendering, which is the limit (sftkit.sandbox.render_limits.{limit}); "
        "it loops or explodes: correct it"
    ) from None


class _Watch:
    """The timer of this process, by which renderings are kept within bounds.

    The timer ticks while there are renderings and stops by itself: to set it for each would cost as much as some do.
    """

    def __init__(self) -> None:
        self._ticking = False
        self._ticks = 0
        self._last: int | None = None
        self._was_used = False

    def run(self, seconds: float, memory: int, render: Callable[[], T]) -> T:
        """Render within so much processor time of this process, and so many more bytes of address space.

        Only the main thread can be interrupted; in others, and on Windows, nothing is.

        Raises:
            _OutOfTimeError, MemoryError: it takes more.
        """
        if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
            return run_with_cached_memory_limit(memory, render)

        def timed() -> T:
            self._was_used = True
            self._last = self._ticks + math.ceil(seconds / _TICK)  # from here on the timer does not stop
            try:
                if not self._ticking:
                    self._start()
                return render()
            finally:
                self._last = None

        return run_with_cached_memory_limit(memory, timed)

    def _start(self) -> None:
        signal.signal(signal.SIGPROF, self._tick)
        signal.siginterrupt(signal.SIGPROF, False)  # system calls of others go on
        signal.setitimer(signal.ITIMER_PROF, _TICK, _TICK)
        self._ticking = True
        atexit.register(self._stop)  # an interpreter that ends lets go of the signal first, which would then kill it

    def _tick(self, number: int, frame: FrameType | None) -> None:
        self._ticks += 1
        if self._last is not None and self._ticks > self._last:
            self._last = None
            raise _OutOfTimeError
        if self._last is None and not self._was_used:
            self._stop()
        self._was_used = False

    def _stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        atexit.unregister(self._stop)
        self._ticking = False

    def forget(self) -> None:
        """In a process that was forked: it has inherited no timer."""
        self._ticking, self._last = False, None


@cache
def _watch() -> _Watch:
    """That of this process."""
    watch = _Watch()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=watch.forget)
    return watch


def _characters(row: object) -> int:
    """Characters of all texts in a row, keys included."""
    if isinstance(row, str):
        return len(row)
    if isinstance(row, dict):
        return sum(map(_characters, row)) + sum(map(_characters, row.values()))
    if isinstance(row, (list, tuple)):
        return sum(map(_characters, row))
    return 8
