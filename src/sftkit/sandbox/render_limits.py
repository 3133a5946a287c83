"""Limits on the processor time, memory and output of one rendering.

Templates come with tokenizers and data configs that may be untrusted. The sandbox of Jinja protects files,
but not the machine's processors and memory. A rendering that takes too much of either is stopped:

- time: a timer interrupts it. The timer counts processor time, so the load of the machine does not matter;
- memory: the address space of the process is limited during the rendering, so an allocation fails, not the machine;
- steps that no timer can interrupt: another process ends this one (`watchdog`). Some are rejected before the template
  is used (`template_check`).

The limits grow with the row. Long rows are rare, so the characters of a row are only counted when it reaches a limit.
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
from sftkit.sandbox.watchdog import watchdog

MAX_SECONDS = 10.0
"""Processor time of one rendering, in seconds."""

MAX_SECONDS_PER_MILLION_CHARACTERS = 1.0
"""Additional seconds for every million characters of the row."""

MAX_MEMORY_BYTES = 2 << 30
"""Address space that a rendering may add (on Linux)."""

MAX_MEMORY_BYTES_PER_CHARACTER = 128
"""Additional amount for every character of the row."""

MAX_OUTPUT_CHARACTERS = 64_000_000
"""Maximum length of a rendered text."""

MAX_OUTPUT_PER_CHARACTER = 32
"""Additional amount for every character of the row."""

T = TypeVar("T")

_TICK = 0.25  # seconds of processor time


class TemplateLimitError(TokenizerError):
    """A template exceeded a limit. Ends the run, because other rows would exceed it as well.

    Args:
        problem: one sentence.
        place: `path:row`, once it is known.
    """

    def __init__(self, problem: str, place: str = "") -> None:
        self.problem, self.place = problem, place
        super().__init__(problem, place)

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}, or leave this row out" if self.place else self.problem

    def at(self, place: str) -> TemplateLimitError:
        """The same error with its place."""
        return type(self)(self.problem, place)

    def about(self, subject: str) -> TemplateLimitError:
        """The same error about something else in the language of templates, such as a condition."""
        return type(self)(self.problem.replace("the template", f"the {subject}"), self.place)


class TemplateChanceError(TemplateLimitError):
    """A template uses something that differs between runs, such as a random choice. Ends the run, too."""


class _OutOfTimeError(BaseException):
    """The timer expired. Not an `Exception`, because Jinja ignores those while it evaluates constants."""


class _Limits(NamedTuple):
    seconds: float
    memory: int
    output: int

    def for_row(self, characters: int) -> _Limits:
        """The limits for a row of this many characters."""
        return _Limits(
            self.seconds + MAX_SECONDS_PER_MILLION_CHARACTERS * characters / 1e6,
            self.memory + MAX_MEMORY_BYTES_PER_CHARACTER * characters,
            self.output + MAX_OUTPUT_PER_CHARACTER * characters,
        )


def render_within_limits(render: Callable[[], T], row: object) -> T:
    """Call `render` within the limits, and return its result.

    Args:
        render: renders or compiles a template. It is called again with higher limits if the row is long.
        row: the row; its characters are counted when a limit is exceeded.

    Raises:
        TemplateLimitError: a limit was exceeded; the error names it.
        Exception: whatever `render` raises.

    Example:
        >>> render_within_limits(lambda: "a" * 3, {"text": "a"})
        'aaa'
    """
    base = _Limits(MAX_SECONDS, MAX_MEMORY_BYTES, MAX_OUTPUT_CHARACTERS)
    try:
        return _within(base, render)
    except TemplateLimitError:
        limits = base.for_row(_characters(row))
        if limits.seconds < 1.1 * base.seconds:
            raise
    return _within(limits, render)


def _within(limits: _Limits, render: Callable[[], T]) -> T:
    try:
        made = _watch().run(limits.seconds, limits.memory, render)
    except _OutOfTimeError:
        _refuse(f"took more than {limits.seconds:.3g} s of processor time", "MAX_SECONDS")
    except MemoryError:
        _refuse(f"took more than {limits.memory >> 20:,} MiB of memory", "MAX_MEMORY_BYTES")
    if isinstance(made, str) and len(made) > limits.output:
        _refuse(f"wrote more than {limits.output:,} characters", "MAX_OUTPUT_CHARACTERS")
    return made


def _refuse(what: str, limit: str) -> NoReturn:
    raise TemplateLimitError(
        f"the template {what} in one rendering, which is the limit (sftkit.sandbox.render_limits.{limit}); "
        "fix the template"
    ) from None


class _Watch:
    """The timer of this process that interrupts renderings.

    It ticks while there are renderings and stops by itself: setting it for each rendering would take as long as some
    renderings do.
    """

    def __init__(self) -> None:
        self._ticking = False
        self._ticks = 0
        self._last: int | None = None
        self._was_used = False
        self._watchdog = watchdog()

    def run(self, seconds: float, memory: int, render: Callable[[], T]) -> T:
        """Call `render` with limits on processor time (seconds) and on added address space (bytes).

        Only the main thread can be interrupted; in other threads, and on Windows, there is no time limit.

        Raises:
            _OutOfTimeError, MemoryError: it takes more.
        """
        if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
            return run_with_cached_memory_limit(memory, render)

        watched = self._watchdog

        def timed() -> T:
            self._was_used = True
            watched.enter()
            self._last = self._ticks + math.ceil(seconds / _TICK)  # from now on the timer does not stop
            try:
                if not self._ticking:
                    self._start()
                return render()
            finally:
                self._last = None
                watched.leave()

        return run_with_cached_memory_limit(memory, timed)

    def _start(self) -> None:
        signal.signal(signal.SIGPROF, self._tick)
        signal.siginterrupt(signal.SIGPROF, False)  # other system calls continue
        signal.setitimer(signal.ITIMER_PROF, _TICK, _TICK)
        self._ticking = True
        # At exit, Python removes the handler first, and the signal would then kill the process.
        atexit.register(self._stop)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        self._ticks += 1
        self._watchdog.tick()
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
        """Reset the state in a forked process, which inherits no timer."""
        self._ticking, self._last = False, None


@cache
def _watch() -> _Watch:
    """The timer of this process."""
    watch = _Watch()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=watch.forget)
    return watch


def _characters(row: object) -> int:
    """Number of characters of all texts in a row, keys included."""
    if isinstance(row, str):
        return len(row)
    if isinstance(row, dict):
        return sum(map(_characters, row)) + sum(map(_characters, row.values()))
    if isinstance(row, (list, tuple)):
        return sum(map(_characters, row))
    return 8
