"""Notice values that are far above those before them, and rates that have fallen, by robust statistics."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

_WINDOW = 64  # values
_LEAST = 24  # values, without which nothing is normal yet
_FIRST = 8  # values that are never used: compilation, caches, warmup
_DEVIATION = 1.4826  # times the median absolute deviation is the standard deviation of a normal distribution
_RECENT = 16  # rates
_FALLEN = 0.5  # of the rate before
_LEAST_SECONDS = 10.0  # that the recent steps took: rates of short steps are noise


@dataclass
class SpikeDetector:
    """Notices a value that is far above the last 64.

    It is so if it is more than `deviations` standard deviations above their median, more than `factor` times as high as
    the median, and more than `beyond` times as high as the highest of them. Median and median absolute deviation do not
    depend on single values. The highest value makes the rule hold where few of the values are always high: rows of one
    of several data sets.
    """

    deviations: float
    factor: float
    beyond: float
    least_rise: float = 0.0
    """Smaller rises do not count."""

    def __post_init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_WINDOW)
        self._weights: deque[float] = deque(maxlen=_WINDOW)
        self._skipped = 0

    def usual(self, value: float, weight: float = 1.0) -> float | None:
        """Add a value; returns the median of those before it if it is a spike, else None.

        Args:
            value: of the next step; one that is not finite is left out.
            weight: how much it was computed from, such as a number of tokens. A value of few tokens varies more.
        """
        if not math.isfinite(value):
            return None
        if self._skipped < _FIRST:
            self._skipped += 1
            return None
        found = self._median_if_above(value, weight) if len(self._values) >= _LEAST else None
        self._values.append(value)
        self._weights.append(weight)
        return found

    def _median_if_above(self, value: float, weight: float) -> float | None:
        values = np.array(self._values)
        median = float(np.median(values))
        deviation = _DEVIATION * float(np.median(np.abs(values - median)))
        spread = math.sqrt(max(1.0, float(np.median(self._weights)) / max(weight, 1e-9)))
        rise = spread * max(self.deviations * deviation, (self.factor - 1) * median, self.least_rise)
        is_spike = value > median + rise and value > self.beyond * spread * float(values.max())
        return median if is_spike else None


class FallDetector:
    """Notices that a rate has fallen to less than half, over 16 steps and 10 seconds at least."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float]] = deque(maxlen=_WINDOW + _RECENT)
        self._skipped = 0

    def fallen(self, amount: float, seconds: float) -> tuple[float, float] | None:
        """Add a step; returns the rate of the recent steps and that before them if it has fallen, else None.

        Args:
            amount: tokens of the step.
            seconds: how long it took.
        """
        if self._skipped < _FIRST:
            self._skipped += 1
            return None
        self._steps.append((amount, max(seconds, 1e-9)))
        steps = np.array(self._steps)
        recent, before = steps[-_RECENT:], steps[:-_RECENT]
        if len(before) < _LEAST or recent[:, 1].sum() < _LEAST_SECONDS:
            return None
        now, usual = (float(np.median(part[:, 0] / part[:, 1])) for part in (recent, before))
        if now >= _FALLEN * usual:
            return None
        self._steps.clear()  # the new rate is the usual one from here on
        return now, usual
