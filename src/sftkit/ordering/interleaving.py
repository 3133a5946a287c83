"""Interleaves data sets by `sampling` weights: the rows of `datasets.interleave_datasets` (5.x) for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.errors import DataError

_DRAWS_AT_ONCE = 1000  # as `datasets` does; blocks of any size give the same draws


def interleave(lengths: Sequence[int], weights: Sequence[float], seed: int, stopping_strategy: str) -> Offsets:
    """Interleave parts like `datasets.interleave_datasets(probabilities=weights)`.

    Args:
        lengths: rows of each part.
        weights: probability of each part; they sum to 1.
        seed: of the random draws.
        stopping_strategy: `first_exhausted`, `all_exhausted` (rows repeat) or `all_exhausted_without_replacement`.

    Returns:
        Indices into the concatenated parts.

    Raises:
        DataError: a part with the weight 0 would have to be exhausted.

    Example:
        >>> interleave([2, 2], [0.5, 0.5], seed=42, stopping_strategy="first_exhausted").tolist()
        [2, 0, 3]
    """
    sizes = np.asarray(lengths, np.int64)
    drawable = np.asarray(weights, np.float64) > 0
    if stopping_strategy != "first_exhausted" and not drawable.all():
        raise DataError(
            f"sampling_stopping_strategy={stopping_strategy} cannot exhaust a data set whose sampling weight is 0; "
            "remove it, or use first_exhausted"
        )
    draws = _draws(sizes, np.asarray(weights, np.float64), drawable, seed, first=stopping_strategy == "first_exhausted")
    bases = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    result = np.empty(len(draws), np.int64)
    kept = np.ones(len(draws), np.bool_)
    ends = []
    for part in np.flatnonzero(drawable):
        places = np.flatnonzero(draws == part)
        ends.append(places[sizes[part] - 1] if len(places) >= sizes[part] else len(draws) - 1)
        turn = np.arange(len(places))
        result[places] = bases[part] + turn % sizes[part]
        kept[places] = turn < sizes[part]
    if stopping_strategy == "first_exhausted":
        return result[: min(ends) + 1]
    if stopping_strategy == "all_exhausted":
        return result[: max(ends) + 1]
    return result[kept]


def _draws(
    sizes: Offsets,
    weights: np.ndarray[tuple[int], np.dtype[np.float64]],
    drawable: np.ndarray[tuple[int], np.dtype[np.bool_]],
    seed: int,
    *,
    first: bool,
) -> Offsets:
    """Draw parts, in blocks, until the first part (or every part) has been drawn as often as it has rows."""
    total = weights.sum()
    probabilities = weights if abs(total - 1) < 1e-9 else weights / total
    generator = np.random.default_rng(seed)
    counts = np.zeros(len(sizes), np.int64)
    blocks: list[Offsets] = []
    while True:
        reached = (counts >= sizes)[drawable]
        if reached.any() if first else reached.all():
            return np.concatenate([*blocks, np.arange(0)])
        block = generator.choice(len(sizes), size=_DRAWS_AT_ONCE, p=probabilities)
        blocks.append(block)
        counts += np.bincount(block, minlength=len(sizes))
