"""Best-fit decreasing of whole rows and of the pieces of rows that are longer than a pack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sftkit.core.rows import Ids, Offsets, lengths_to_offsets
from sftkit.ordering.packing_strategy import PackingStrategy, Packs
from sftkit.ordering.strategies.best_fit import pack_bfd


class BestFitSplit(PackingStrategy):
    """Cuts rows that are longer than a pack into pieces, and fills packs with pieces and whole rows."""

    registered_as = "bfd_split"
    keeps_rows_whole = False
    cuts_inside_packs = True

    def pack(self, lengths: Offsets | Ids, capacity: int) -> Packs:
        """See `pack_bfd_split`."""
        return pack_bfd_split(lengths, capacity)


def pack_bfd_split(lengths: Offsets | Ids, capacity: int) -> Packs:
    """Cut rows that are longer than a pack, then pack best-fit decreasing.

    A longer row becomes pieces of `capacity` tokens, each a pack, and a rest, which is packed like a row. TRL's packing
    strategy of the same name cuts in the same places.

    Args:
        lengths: tokens of each row, shape (rows,).
        capacity: tokens of a pack.

    Example:
        >>> packs = pack_bfd_split(np.array([3, 12, 2]), 5)
        >>> packs.rows.tolist(), packs.starts.tolist(), packs.lengths.tolist(), packs.offsets.tolist()
        ([1, 1, 0, 1, 2], [0, 5, 0, 10, 0], [5, 5, 3, 2, 2], [0, 1, 2, 4, 5])
    """
    lengths = np.asarray(lengths, np.int64)
    counts = -(-lengths // capacity)
    offsets = lengths_to_offsets(counts)
    rows = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
    starts = (np.arange(len(rows)) - offsets[:-1][rows]) * capacity
    pieces = np.minimum(lengths[rows] - starts, capacity)
    packs = pack_bfd(pieces, capacity)
    return replace(packs, rows=rows[packs.rows], starts=starts[packs.rows].astype(np.int32))
