"""Makes the number of packs a multiple of the processes that train on them, by dividing packs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sftkit.core.rows import Offsets, lengths_to_offsets
from sftkit.errors import DataError
from sftkit.ordering.packing_strategy import Packs


def divide_packs(packs: Packs, multiple: int) -> Packs:
    """Divide some packs in two so that the number of packs is a multiple.

    The packs with the fewest tokens are divided first, so that full ones stay full, each between the two sequences that
    are nearest to its middle. Both halves stay where the pack was, so the order of sequences does not change.

    Args:
        packs: of any strategy.
        multiple: what the number of packs is to be a multiple of.

    Raises:
        DataError: there are fewer sequences than packs are needed.

    Example:
        >>> packs = Packs(np.arange(4), np.zeros(4, int), np.array([3, 5, 1, 2]), np.array([0, 1, 4]))
        >>> divide_packs(packs, 3).offsets.tolist()
        [0, 1, 2, 4]
    """
    wanted = -(-len(packs) // multiple) * multiple
    if wanted > len(packs.rows):
        raise DataError(
            f"pack_count_multiple_of={multiple}: {len(packs.rows)} sequences cannot fill {wanted} packs; set "
            f"pack_count_multiple_of={max(1, len(packs.rows))} or less, or use more rows"
        )
    while len(packs) < wanted:
        divisible = np.flatnonzero(np.diff(packs.offsets) > 1)
        smallest = divisible[np.argsort(packs.sizes[divisible], kind="stable")]
        packs = _divide(packs, smallest[: wanted - len(packs)])
    return packs


def _divide(packs: Packs, chosen: Offsets) -> Packs:
    """Divide each of some packs, which have at least two sequences, near the middle of its tokens."""
    ends = lengths_to_offsets(packs.lengths.astype(np.int64))
    first, stop = packs.offsets[chosen], packs.offsets[chosen + 1]
    middle = (ends[first] + ends[stop]) / 2
    after = np.searchsorted(ends, middle)
    before = after - 1
    nearest = np.where(middle - ends[before] <= ends[after] - middle, before, after)
    cuts = np.clip(nearest, first + 1, stop - 1)
    return replace(packs, offsets=np.sort(np.concatenate([packs.offsets, cuts])))
