"""Round numbers for axes and bins, and short forms of counts."""

from __future__ import annotations

import math

_STEPS = (1, 2, 5, 10)


def nice_step(span: float, parts: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, ... that divides a span into at most `parts` parts.

    Example:
        >>> nice_step(97, 5), nice_step(3, 5), nice_step(4096, 32)
        (20, 1, 200)
    """
    least = max(1.0, span / parts)
    power = 10 ** math.floor(math.log10(least))
    return next(int(step * power) for step in _STEPS if step * power >= least)


def axis_ticks(largest: int) -> list[int]:
    """Return round values from 0 to `largest` or a little more.

    Example:
        >>> axis_ticks(198)
        [0, 50, 100, 150, 200]
    """
    step = nice_step(max(largest, 1), 4)
    return list(range(0, largest + step, step))


def short_count(count: int) -> str:
    """Write a count in at most five characters.

    Example:
        >>> short_count(950), short_count(1500), short_count(20_000_000)
        ('950', '1.5k', '20M')
    """
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + unit
    return str(count)
