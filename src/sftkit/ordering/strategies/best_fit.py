"""Best-fit decreasing: longest rows first, each into the fullest pack that still has enough free space.

The algorithm is that of Johnson, "Near-optimal bin packing algorithms" (MIT, 1973). As in Krell et al., "Efficient
Sequence Packing without Cross-contamination" (2021), it works on lengths instead of rows: rows of one length are
interchangeable, and so are packs with the same free space, so whole runs of them are handled at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sftkit.core.rows import Ids, Offsets, lengths_to_offsets
from sftkit.ordering.packing_strategy import PackingStrategy, Packs

_WORD_BITS = 512  # keeps both levels of `_SpaceIndex` small
_ROWS_AT_ONCE = 1 << 20


class BestFitDecreasing(PackingStrategy):
    """Fills packs with whole rows."""

    registered_as = "bfd"
    keeps_rows_whole = True

    def pack(self, lengths: Offsets | Ids, capacity: int) -> Packs:
        """See `pack_bfd`."""
        return pack_bfd(lengths, capacity)


def pack_bfd(lengths: Offsets | Ids, capacity: int) -> Packs:
    """Pack whole rows best-fit decreasing. Packs are in the order of opening, their rows in the original order.

    A run of rows of length L goes into the packs with the least free space r that is enough. Each of these packs takes
    r // L of the rows in succession (while it has space, no other pack fits better), so a run of c packs takes up to
    c * (r // L) rows in one step. The steps are recorded as runs, and expanded to single rows at the end.

    Args:
        lengths: tokens of each row, 1 to `capacity`, shape (rows,); less than 2^31 rows.
        capacity: tokens of a pack.

    Raises:
        ValueError: a length is not 1 to `capacity`.

    Example:
        >>> packs = pack_bfd(np.array([2, 5, 3]), 5)
        >>> packs.rows.tolist(), packs.offsets.tolist()
        ([1, 0, 2], [0, 1, 3])
    """
    lengths = np.asarray(lengths, np.int32)
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= capacity:
        raise ValueError(f"lengths must lie between 1 and {capacity}")
    first_packs, rows_per_pack, run_rows = _pack_runs(np.bincount(lengths), capacity)
    narrow = np.uint16 if capacity < 1 << 16 else np.int32  # numpy sorts 16 bits by radix
    order = np.argsort((capacity - lengths).astype(narrow), kind="stable")  # the rows in the order of the runs
    pack_of = np.empty(len(lengths), np.int32)
    for part, packs in _expand_runs(first_packs, rows_per_pack, run_rows):
        pack_of[order[part]] = packs
    del order
    rows = np.argsort(pack_of, kind="stable")
    starts = np.zeros(len(rows), np.int32)
    return Packs(rows.astype(np.int32), starts, lengths[rows], lengths_to_offsets(np.bincount(pack_of)))


def _pack_runs(counts: Offsets, capacity: int) -> tuple[Offsets, Offsets, Offsets]:
    """Pack rows, longest first.

    Args:
        counts: how many rows there are of each length.
        capacity: tokens of a pack.

    Returns:
        Runs in the order of the rows, shape (runs,) each: the first pack of the run, the rows that each of its packs
        takes (the last may take fewer), and the rows of the run.
    """
    spaces = _SpaceIndex(capacity)
    packs_with: list[list[tuple[int, int]]] = [[] for _ in range(capacity + 1)]  # by free space: (first pack, packs)
    opened = 0
    first_packs: list[int] = []
    rows_per_pack: list[int] = []
    run_rows: list[int] = []
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            space = spaces.next(length)
            if space is None:
                space = capacity
                packs = -(-left // (space // length))
                packs_with[space].append((opened, packs))
                spaces.add(space)
                opened += packs
            fitting = space // length
            pack, packs = packs_with[space].pop()
            used = min(packs, -(-left // fitting))
            if used < packs:
                packs_with[space].append((pack + used, packs - used))
            rows = min(left, used * fitting)
            left -= rows
            full = rows // fitting
            if full:
                packs_with[space - fitting * length].append((pack, full))
                spaces.add(space - fitting * length)
            if full < used:
                remaining = space - (rows - full * fitting) * length
                packs_with[remaining].append((pack + full, 1))
                spaces.add(remaining)
            if not packs_with[space]:
                spaces.remove(space)
            first_packs.append(pack)
            rows_per_pack.append(fitting)
            run_rows.append(rows)
    return np.array(first_packs, np.int64), np.array(rows_per_pack, np.int64), np.array(run_rows, np.int64)


def _expand_runs(first_packs: Offsets, rows_per_pack: Offsets, run_rows: Offsets) -> Iterator[tuple[slice, Offsets]]:
    """Yield the pack of each row, for some rows at a time: (which rows, in the order of the runs; their packs)."""
    ends = np.cumsum(run_rows)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _ROWS_AT_ONCE):
        places = np.arange(start, min(start + _ROWS_AT_ONCE, total))
        run = np.searchsorted(ends, places, side="right")
        within: Offsets = places - (ends[run] - run_rows[run])
        yield slice(start, start + len(places)), first_packs[run] + within // rows_per_pack[run]


class _SpaceIndex:
    """A set of whole numbers from 0 to a limit with fast lookup of the next larger member: bits in two levels."""

    def __init__(self, limit: int) -> None:
        self._words = [0] * (limit // _WORD_BITS + 1)
        self._filled = 0  # bit i: word i is not empty

    def add(self, number: int) -> None:
        """Add a number if it is missing."""
        word, bit = divmod(number, _WORD_BITS)
        self._words[word] |= 1 << bit
        self._filled |= 1 << word

    def remove(self, number: int) -> None:
        """Remove a number."""
        word, bit = divmod(number, _WORD_BITS)
        self._words[word] &= ~(1 << bit)
        if not self._words[word]:
            self._filled &= ~(1 << word)

    def next(self, number: int) -> int | None:
        """Return the smallest member that is not less than a number."""
        word, bit = divmod(number, _WORD_BITS)
        here = self._words[word] >> bit
        if here:
            return number + _lowest_bit(here)
        later = self._filled >> (word + 1)
        if not later:
            return None
        word += 1 + _lowest_bit(later)
        return word * _WORD_BITS + _lowest_bit(self._words[word])


def _lowest_bit(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
