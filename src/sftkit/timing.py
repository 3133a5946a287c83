"""Where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping


class Stopwatch:
    """Seconds spent on each of several things that are done one after another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """What was done since the last lap was this."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


def summed(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by name, over several processes or units."""
    total: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            total[name] = total.get(name, 0.0) + seconds
    return total
