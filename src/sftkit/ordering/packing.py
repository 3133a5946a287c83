"""Lengths of rows -> packs of at most `capacity` tokens. On integers only: no token is looked at.

`pack_bfd` is best-fit decreasing (Johnson, "Near-optimal bin packing algorithms", MIT 1973): longest rows first, each
into the fullest pack that still has room for it. As Krell et al. ("Efficient Sequence Packing without
Cross-contamination", 2021) it goes through lengths, not rows: rows of one length are alike, and so are packs of one
room, so that whole runs of them are dealt with at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sftkit.config.schema import DataOptions
from sftkit.core.rows import Ids, Offsets, lengths_to_offsets

NONE, BFD, WRAPPED = "none", "bfd", "wrapped"
"""What `packing` may be."""

_WORD = 512  # bits of a word of `_RoomIndex`: both of its levels stay small
_AT_ONCE = 1 << 20  # rows


@dataclass(frozen=True)
class Packs:
    """Which rows, or pieces of rows, make up each pack.

    rows, starts, lengths: of each piece, its row, its first token within the row and its tokens, int32, shape
    (pieces,). offsets: pack i is the pieces from offsets[i] to offsets[i + 1], int64, shape (packs + 1,).
    """

    rows: Ids
    starts: Ids
    lengths: Ids
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Offsets:
        """Tokens of each pack, shape (packs,)."""
        return np.diff(lengths_to_offsets(self.lengths.astype(np.int64))[self.offsets])

    def take(self, packs: Offsets) -> Packs:
        """These packs, in this order."""
        counts = np.diff(self.offsets)[packs]
        offsets = lengths_to_offsets(counts)
        pieces = np.arange(offsets[-1])
        pieces += np.repeat(self.offsets[packs] - offsets[:-1], counts)
        return Packs(self.rows[pieces], self.starts[pieces], self.lengths[pieces], offsets)


def pack_length_of(options: DataOptions) -> int | None:
    """Tokens that a pack may hold; None where rows are not packed."""
    return None if options.packing == NONE else options.pack_length or options.max_seq_length


def make_packs(lengths: Offsets | Ids, options: DataOptions) -> Packs | None:
    """Rows of these lengths as the options want them packed; None where they want no packs."""
    capacity = pack_length_of(options)
    if capacity is None:
        return None
    return pack_wrapped(lengths, capacity) if options.packing == WRAPPED else pack_bfd(lengths, capacity)


def pack_wrapped(lengths: Offsets | Ids, capacity: int) -> Packs:
    """Rows laid end to end in their order, cut wherever a pack is full; the last one may not be.

    Args:
        lengths: tokens of each row, shape (rows,).
        capacity: tokens of a pack.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    begins = ends - lengths
    first = begins // capacity  # pack
    counts = np.where(ends > begins, (ends - 1) // capacity - first + 1, 0)
    offsets = lengths_to_offsets(counts)
    rows = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    packs = np.arange(len(rows)) - (offsets[:-1] - first)[rows]
    starts = np.maximum(begins[rows], packs * capacity)
    sizes = np.minimum(ends[rows], (packs + 1) * capacity) - starts
    within = (starts - begins[rows]).astype(np.int32)
    return Packs(rows, within, sizes.astype(np.int32), lengths_to_offsets(np.bincount(packs)))


def pack_bfd(lengths: Offsets | Ids, capacity: int) -> Packs:
    """Whole rows, best-fit decreasing. Packs are in the order in which they were opened, the rows of each in theirs.

    A run of `n` rows of length L meets the packs with the least room r that is enough. Each of these takes r // L of
    the rows one after the other (while it has room, none is a better fit), so that a run of c packs takes up to
    c * (r // L) rows in one step. What was done is noted in runs, and told row by row at the end.

    Args:
        lengths: tokens of each row, 1 to `capacity`, shape (rows,); less than 2^31 rows.
        capacity: tokens of a pack.

    Raises:
        ValueError: a length is not 1 to `capacity`.
    """
    lengths = np.asarray(lengths, np.int32)
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= capacity:
        raise ValueError(f"lengths must lie between 1 and {capacity}")
    first, each, taken = _runs(np.bincount(lengths), capacity)
    narrow = np.uint16 if capacity < 1 << 16 else np.int32  # numpy sorts 16 bits by radix
    order = np.argsort((capacity - lengths).astype(narrow), kind="stable")  # as the runs met them
    pack_of = np.empty(len(lengths), np.int32)
    for part, packs in _told(first, each, taken):
        pack_of[order[part]] = packs
    del order
    rows = np.argsort(pack_of, kind="stable")
    starts = np.zeros(len(rows), np.int32)
    return Packs(rows.astype(np.int32), starts, lengths[rows], lengths_to_offsets(np.bincount(pack_of)))


def _runs(counts: Offsets, capacity: int) -> tuple[Offsets, Offsets, Offsets]:
    """Pack rows by how many there are of each length, longest first.

    Returns:
        Runs in the order of the rows, shape (runs,) each: the first pack of the run, the rows that each of its packs
        takes (the last may take fewer), and the rows of the run.
    """
    rooms = _RoomIndex(capacity)
    runs_of: list[list[tuple[int, int]]] = [[] for _ in range(capacity + 1)]  # by room: (first pack, packs)
    opened = 0
    first: list[int] = []
    each: list[int] = []
    taken: list[int] = []
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            room = rooms.next(length)
            if room is None:
                room = capacity
                packs = -(-left // (room // length))
                runs_of[room].append((opened, packs))
                rooms.add(room)
                opened += packs
            fitting = room // length
            pack, packs = runs_of[room].pop()
            used = min(packs, -(-left // fitting))
            if used < packs:
                runs_of[room].append((pack + used, packs - used))
            rows = min(left, used * fitting)
            left -= rows
            full = rows // fitting
            if full:
                runs_of[room - fitting * length].append((pack, full))
                rooms.add(room - fitting * length)
            if full < used:
                after = room - (rows - full * fitting) * length
                runs_of[after].append((pack + full, 1))
                rooms.add(after)
            if not runs_of[room]:
                rooms.remove(room)
            first.append(pack)
            each.append(fitting)
            taken.append(rows)
    return np.array(first, np.int64), np.array(each, np.int64), np.array(taken, np.int64)


def _told(first: Offsets, each: Offsets, taken: Offsets) -> Iterator[tuple[slice, Offsets]]:
    """The runs row by row, some rows at a time: (the rows by their place among all, the pack of each)."""
    ends = np.cumsum(taken)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _AT_ONCE):
        places = np.arange(start, min(start + _AT_ONCE, total))
        run = np.searchsorted(ends, places, side="right")
        within: Offsets = places - (ends[run] - taken[run])
        yield slice(start, start + len(places)), first[run] + within // each[run]


class _RoomIndex:
    """A set of whole numbers from 0 to a limit that knows the next larger one, as bits in two levels."""

    def __init__(self, limit: int) -> None:
        self._words = [0] * (limit // _WORD + 1)
        self._filled = 0  # bit i: word i is not empty

    def add(self, number: int) -> None:
        """Put a number in, if it is not there."""
        word, bit = divmod(number, _WORD)
        self._words[word] |= 1 << bit
        self._filled |= 1 << word

    def remove(self, number: int) -> None:
        """Take a number out."""
        word, bit = divmod(number, _WORD)
        self._words[word] &= ~(1 << bit)
        if not self._words[word]:
            self._filled &= ~(1 << word)

    def next(self, number: int) -> int | None:
        """The least member that is not less than a number."""
        word, bit = divmod(number, _WORD)
        here = self._words[word] >> bit
        if here:
            return number + _lowest_bit(here)
        later = self._filled >> (word + 1)
        if not later:
            return None
        word += 1 + _lowest_bit(later)
        return word * _WORD + _lowest_bit(self._words[word])


def _lowest_bit(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
