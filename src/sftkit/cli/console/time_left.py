"""Estimates how long the rest of a training run takes."""

from __future__ import annotations

import time
from collections import deque

_RECENT = 100  # steps


class TimeLeft:
    """Measures steps, and estimates the time of those that are left from the recent ones.

    The first step does not count, because it compiles and allocates; nor does what happens between steps, such as an
    evaluation. The estimate has no time for the evaluations that are left.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._calls = 0
        self._since = 0.0
        self._step = self.max_steps = 0

    def step(self, step: int, max_steps: int) -> None:
        """Record that the run is at a step; the first call is before its first step."""
        now = time.monotonic()
        if self._calls > 1:
            self._seconds.append(now - self._since)
        self._calls += 1
        self._since, self._step, self.max_steps = now, step, max_steps

    def skip(self) -> None:
        """Leave out the time since the last step: something else took place."""
        self._since = time.monotonic()

    def estimate(self) -> float | None:
        """Return the seconds that are left; None before the second step, and at the end."""
        left = self.max_steps - self._step
        return sum(self._seconds) / len(self._seconds) * left if self._seconds and left > 0 else None
