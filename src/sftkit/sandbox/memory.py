"""The memory of this process, and a limit on how much a function may add to it."""

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
_MEASURED_FOR = 0.5  # seconds that a measured size stays valid: measuring takes as long as many limited calls


def resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 if unknown (only Linux reports it)."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def run_with_memory_limit(more: int, function: Callable[[], T]) -> T:
    """Call a function that may add at most `more` bytes to the address space of this process.

    There is no limit except on Linux.

    Raises:
        MemoryError: the function needs more. Code that does not allocate through Python may end the process instead.
    """
    space = _address_space()
    return function() if space is None else space.measure().limited(more, function)


def run_with_cached_memory_limit(more: int, function: Callable[[], T]) -> T:
    """Like `run_with_memory_limit`, for short functions that are called often and can be called again.

    The size of the process is measured only from time to time, and when the function runs out of memory.
    """
    space = _address_space()
    if space is None:
        return function()
    if space.is_valid():
        try:
            return space.limited(more, function)
        except MemoryError:
            pass
    return space.measure().limited(more, function)


class _AddressSpace:
    """The address space of this process: its last measured size, and the growth that running functions may cause.

    Several threads may run limited functions at the same time; their limits add up. Without any, the limits that the
    process was started with apply.
    """

    def __init__(self) -> None:
        import resource

        self._kind, self._set_limits = resource.RLIMIT_AS, resource.setrlimit
        self._limits = resource.getrlimit(resource.RLIMIT_AS)
        soft, self._hard = self._limits
        self._soft = math.inf if soft == resource.RLIM_INFINITY else soft
        self._lock = threading.Lock()
        self._measured = -_MEASURED_FOR
        self._size = 0
        self._allowances: dict[object, int] = {}  # bytes that each running function may add

    def is_valid(self) -> bool:
        """Whether the last measurement is still valid."""
        return time.monotonic() < self._measured + _MEASURED_FOR

    def measure(self) -> _AddressSpace:
        """Measure the size now."""
        with self._lock:
            self._measured = time.monotonic()
            self._size = int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        return self

    def limited(self, more: int, function: Callable[[], T]) -> T:
        call = object()  # an interrupt may arrive anywhere: the allowance of a call that has ended must not stay
        try:
            self._allowances[call] = more
            self._apply()
            return function()
        finally:
            self._allowances.pop(call, None)
            self._apply()

    def _apply(self) -> None:
        """Set the limit to what all running functions may add. Restore the original limits when none runs."""
        with self._lock:
            growth = sum(list(self._allowances.values()))
            most = self._size + growth
            bounds = (most, self._hard) if growth and most < self._soft else self._limits
            self._set_limits(self._kind, bounds)


@cache
def _address_space() -> _AddressSpace | None:
    return _AddressSpace() if sys.platform.startswith("linux") else None
