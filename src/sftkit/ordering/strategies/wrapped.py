"""Rows concatenated in their order and cut wherever a pack is full."""

from __future__ import annotations

import numpy as np

from sftkit.core.rows import Ids, Offsets, lengths_to_offsets
from sftkit.ordering.packing_strategy import PackingStrategy, Packs


class Wrapped(PackingStrategy):
    """Concatenates rows and cuts them."""

    registered_as = "wrapped"
    keeps_rows_whole = False

    def pack(self, lengths: Offsets | Ids, capacity: int) -> Packs:
        """See `pack_wrapped`."""
        return pack_wrapped(lengths, capacity)


def pack_wrapped(lengths: Offsets | Ids, capacity: int) -> Packs:
    """Concatenate rows in their order and cut wherever a pack is full; only the last pack may not be full.

    Args:
        lengths: tokens of each row, shape (rows,).
        capacity: tokens of a pack.

    Example:
        >>> packs = pack_wrapped(np.array([3, 4]), 5)
        >>> packs.rows.tolist(), packs.starts.tolist(), packs.lengths.tolist(), packs.offsets.tolist()
        ([0, 1, 1], [0, 0, 2], [3, 2, 2], [0, 2, 3])
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    begins = ends - lengths
    first_packs = begins // capacity
    counts = np.where(ends > begins, (ends - 1) // capacity - first_packs + 1, 0)
    offsets = lengths_to_offsets(counts)
    rows = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    packs = np.arange(len(rows)) - (offsets[:-1] - first_packs)[rows]
    starts = np.maximum(begins[rows], packs * capacity)
    sizes = np.minimum(ends[rows], (packs + 1) * capacity) - starts
    within = (starts - begins[rows]).astype(np.int32)
    return Packs(rows, within, sizes.astype(np.int32), lengths_to_offsets(np.bincount(packs)))
