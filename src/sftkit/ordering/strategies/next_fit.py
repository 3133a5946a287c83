"""Next fit: rows in their order, each into the last pack if there is space, else into a new one."""

from __future__ import annotations

import numpy as np

from sftkit.core.rows import Ids, Offsets, lengths_to_offsets
from sftkit.ordering.packing_strategy import PackingStrategy, Packs


class NextFit(PackingStrategy):
    """Fills packs with whole rows and keeps their order."""

    registered_as = "next_fit"
    keeps_rows_whole = True
    keeps_order = True

    def pack(self, lengths: Offsets | Ids, capacity: int) -> Packs:
        """See `pack_next_fit`."""
        return pack_next_fit(lengths, capacity)


def pack_next_fit(lengths: Offsets | Ids, capacity: int) -> Packs:
    """Pack whole rows in their order: a pack ends before the first row that it has no space for.

    Args:
        lengths: tokens of each row, 1 to `capacity`, shape (rows,).
        capacity: tokens of a pack.

    Raises:
        ValueError: a length is not 1 to `capacity`.

    Example:
        >>> packs = pack_next_fit(np.array([2, 3, 1, 5]), 5)
        >>> packs.rows.tolist(), packs.offsets.tolist()
        ([0, 1, 2, 3], [0, 2, 3, 4])
    """
    lengths = np.asarray(lengths, np.int32)
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= capacity:
        raise ValueError(f"lengths must lie between 1 and {capacity}")
    ends = lengths_to_offsets(lengths.astype(np.int64))
    # The first row of the pack after one that begins with a given row.
    following = (np.searchsorted(ends, ends[:-1] + capacity, side="right") - 1).tolist()
    offsets = [0]
    while offsets[-1] < len(lengths):
        offsets.append(following[offsets[-1]])
    rows = np.arange(len(lengths), dtype=np.int32)
    return Packs(rows, np.zeros_like(rows), lengths, np.array(offsets, np.int64))
