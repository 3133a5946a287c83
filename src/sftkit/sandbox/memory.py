"""How much memory this process holds, and how much more it may take while something is done."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATM = Path("/proc/self/statm")
_MEASURED_FOR = 0.5  # seconds that a measured size holds: measuring costs as much as what is often done within bounds


def resident_bytes() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not tell (it is no Linux)."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def run_with_memory_limit(more: int, function: Callable[[], T]) -> T:
    """What a function gives that may let the address space of this process grow by so many bytes.

    Where the system does not tell its size (it is no Linux), it may grow at will.

    Raises:
        MemoryError: it needs more. What allocates in another way than Python's may end the process instead.
    """
    space = _address_space()
    return function() if space is None else space.measured().limited(more, function)


def run_with_cached_memory_limit(more: int, function: Callable[[], T]) -> T:
    """As `run_with_memory_limit`, for functions that are called often, are short and can be called again.

    The size of the process is measured now and then, and when the function fails for lack of memory.
    """
    space = _address_space()
    if space is None:
        return function()
    if space.is_new():
        try:
            return space.limited(more, function)
        except MemoryError:
            pass
    return space.measured().limited(more, function)


class _AddressSpace:
    """That of this process: its size as last measured, in bytes, and by how much more those may let it grow who are at
    work, in any thread. The limits are those that the process was given from outside, at first.
    """

    def __init__(self) -> None:
        import resource

        self._kind, self._set_limits = resource.RLIMIT_AS, resource.setrlimit
        self._limits = resource.getrlimit(resource.RLIMIT_AS)
        soft, self._hard = self._limits
        self._soft = math.inf if soft == resource.RLIM_INFINITY else soft
        self._lock = threading.Lock()
        self._measured = -_MEASURED_FOR
        self._size = self._growth = 0

    def is_new(self) -> bool:
        """Whether what was measured may hold still."""
        return time.monotonic() < self._measured + _MEASURED_FOR

    def measured(self) -> _AddressSpace:
        """The same, measured now."""
        with self._lock:
            self._measured = time.monotonic()
            self._size = int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        return self

    def limited(self, more: int, function: Callable[[], T]) -> T:
        self._grow(more)
        try:
            return function()
        finally:
            self._grow(-more)

    def _grow(self, more: int) -> None:
        """Let the process grow by so much more from now on, or less; when nobody is at work any more, at will."""
        with self._lock:
            self._growth += more
            most = self._size + self._growth
            bounds = (most, self._hard) if self._growth and most < self._soft else self._limits
            self._set_limits(self._kind, bounds)


@cache
def _address_space() -> _AddressSpace | None:
    return _AddressSpace() if sys.platform.startswith("linux") else None
