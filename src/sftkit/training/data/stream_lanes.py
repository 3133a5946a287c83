"""The order of an epoch for streaming: lanes side by side, so that each process reads only its own part of the data.

1. The files of the split, in an order drawn for the epoch, form a ring of rows, which starts at a row drawn for the
   epoch (`RowRing`). So a row is in another lane and another step in every epoch.
2. The ring is cut into a fixed number of lanes of consecutive rows (`Lane`).
3. Every lane has its slots in a step: with L lanes and R rows in a step, lane l has the slots l * R // L to
   (l + 1) * R // L. A lane is as long as all its slots in all steps together, so all lanes end with the epoch
   (`LaneSet`). The last, shorter step is divided in the same way.
4. Within a lane, rows are shuffled in windows, as in `EpochOrder`. All lanes together hold `window_tokens`.
5. With P processes, process p takes the slots p * R // P to (p + 1) * R // P of every step, and so the same lanes in
   all steps. It reads no other lane.

The number of lanes and the rows of a step do not depend on the number of processes (points 1 to 4): any number of
processes sees the same steps, and a run can resume with another number of them. Every row comes exactly once in an
epoch, because the slots of all steps cover every lane and the lanes cover the ring. Nothing before the current window
of a lane has to be read, so that a run can resume at any step.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.training.data.epoch_order import NO_ROWS, Shuffling
from sftkit.training.data.rows.split_rows import RowRefs, SplitRows


def even_share(count: int, parts: int, number: int) -> tuple[int, int]:
    """Start and stop of part `number` of 0 to `count`, divided into nearly equal parts.

    Example:
        >>> [even_share(8, 3, number) for number in range(3)]
        [(0, 2), (2, 5), (5, 8)]
    """
    return number * count // parts, (number + 1) * count // parts


@dataclass(frozen=True)
class LaneSegment:
    """Rows `first` to `stop` (excluded) of a row group."""

    group: int
    first: int
    stop: int

    tokens: int
    """Tokens of the whole row group, because it is read as a whole."""


class RowRing:
    """All rows of a split in a ring, file after file, in the order of an epoch.

    Shuffled, both the order of files and the row at position 0 are drawn for the epoch. The rows of all files must be
    known in number; the footer of a file is read only when a position in it is reached.
    """

    def __init__(self, rows: SplitRows, shuffling: Shuffling, epoch: int) -> None:
        counts = np.array([rows.file_rows(file) for file in range(rows.files)], np.int64)
        files = np.arange(rows.files)
        self._rotation = 0  # rows
        if shuffling.shuffled:
            generator = np.random.default_rng([shuffling.seed, epoch])
            files = generator.permutation(files)
            self._rotation = int(generator.integers(counts.sum()))
        self._rows = rows
        self._files = files
        self._counts: Offsets = counts[files]
        self._ends: Offsets = np.cumsum(counts[files])

    def segments(self, start: int, stop: int) -> Iterator[LaneSegment]:
        """The rows at positions start to stop (excluded), in order.

        Raises:
            SourceError, DataError: a file cannot be read.
        """
        total = int(self._ends[-1])
        while start < stop:
            position = (start + self._rotation) % total
            index = int(np.searchsorted(self._ends, position, side="right"))
            count = int(self._counts[index])
            first = position - int(self._ends[index]) + count
            last = min(first + stop - start, count)
            yield from self._segments_of_file(int(self._files[index]), first, last)
            start += last - first

    def _segments_of_file(self, file: int, first: int, stop: int) -> Iterator[LaneSegment]:
        """Rows first to stop (excluded) of a file."""
        before = 0  # rows of the groups before this one
        for group in self._rows.groups_of(file):
            location = self._rows.locations[group]
            segment = LaneSegment(group, max(first - before, 0), min(stop - before, location.rows), location.tokens)
            if segment.first < segment.stop:
                yield segment
            before += location.rows


class Lane:
    """Consecutive rows of a ring, shuffled in windows, which are cut and permuted when they are reached."""

    def __init__(self, ring: RowRing, start: int, stop: int, window_tokens: int, seed: tuple[int, ...] | None) -> None:
        """Set up the lane without reading anything.

        Args:
            ring: of the epoch.
            start: position on the ring of the lane's first row.
            stop: position after its last row.
            window_tokens: the most tokens of a window that has more than one row group.
            seed: seeds the permutations, with the number of the window; None for rows in order.
        """
        self._ring = ring
        self._start = start
        self._stop = stop
        self._window_tokens = window_tokens
        self._seed = seed
        self._starts = [0]  # of every window cut so far, and of the next one; in rows from the start of the lane
        self._windows: list[list[LaneSegment]] = []
        self._ordered: dict[int, _Window] = {}

    def rows(self, start: int, stop: int) -> RowRefs:
        """The lane's rows start to stop (excluded)."""
        parts = [NO_ROWS]
        for number in self._reach(start, stop):
            window_start = self._starts[number]
            parts.append(self._window(number).refs[max(start - window_start, 0) : stop - window_start])
        return np.concatenate(parts)

    def groups_needed_after(self, start: int, stop: int) -> set[int]:
        """The row groups with a row at or after `stop`, in the window that contains the row before it."""
        last = self._reach(start, stop)[-1]
        window = self._window(last)
        return set(window.groups[window.last_rows >= stop - self._starts[last]].tolist())

    def _reach(self, start: int, stop: int) -> range:
        """Cut windows up to row `stop` and forget those before `start`; the windows that hold these rows."""
        while self._starts[-1] < stop:
            window = self._cut_window(self._start + self._starts[-1])
            self._windows.append(window)
            self._starts.append(self._starts[-1] + sum(segment.stop - segment.first for segment in window))
        first = bisect_right(self._starts, start) - 1
        for number in [number for number in self._ordered if number < first]:
            del self._ordered[number]
        return range(first, bisect_left(self._starts, stop))

    def _cut_window(self, position: int) -> list[LaneSegment]:
        """The window that starts at a position of the ring."""
        window: list[LaneSegment] = []
        tokens = 0
        for segment in self._ring.segments(position, self._stop):
            if window and tokens + segment.tokens > self._window_tokens:
                break
            window.append(segment)
            tokens += segment.tokens
        return window

    def _window(self, number: int) -> _Window:
        if number not in self._ordered:
            columns = [(np.full(each.stop - each.first, each.group), np.arange(each.first, each.stop))
                       for each in self._windows[number]]  # fmt: skip
            refs: RowRefs = np.concatenate([np.stack(column, axis=1) for column in columns])
            if self._seed is not None:
                refs = refs[np.random.default_rng([*self._seed, number]).permutation(len(refs))]
            groups, from_end = np.unique(refs[::-1, 0], return_index=True)
            self._ordered[number] = _Window(refs, groups, len(refs) - 1 - from_end)
        return self._ordered[number]


class LaneSet:
    """The lanes of one epoch, and which rows they give to each step. See the top of this module."""

    def __init__(self, rows: SplitRows, shuffling: Shuffling, epoch: int, count: int, rows_per_step: int) -> None:
        """Set up the lanes without reading anything.

        Args:
            rows: of the split.
            shuffling: how they are shuffled.
            epoch: number of the epoch.
            count: how many lanes there are.
            rows_per_step: rows of a full step, of all processes together.
        """
        self._shuffling = shuffling
        self._epoch = epoch
        self._count = count
        self._rows_per_step = rows_per_step
        self._full_steps, self._last_step_rows = divmod(len(rows), rows_per_step)
        self._ring = RowRing(rows, shuffling, epoch)
        self._lanes: dict[int, Lane] = {}

    def rows(self, step: int, start: int, stop: int) -> RowRefs:
        """The rows in the slots start to stop (excluded) of a step; only the lanes of these slots are read."""
        taken = (self._lane(lane).rows(first, last) for lane, first, last in self._rows_of_lanes(step, start, stop))
        return np.concatenate([NO_ROWS, *taken])

    def groups_needed_after(self, step: int, start: int, stop: int) -> set[int]:
        """The row groups that a process which takes these slots of every step should keep in memory after it."""
        lanes = self._rows_of_lanes(step, start, stop)
        return set().union(*(self._lane(lane).groups_needed_after(first, last) for lane, first, last in lanes))

    def _rows_of_lanes(self, step: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Each lane with slots among these of a step, with the start and the stop of the lane's rows in them."""
        rows = self._rows_per_step if step < self._full_steps else self._last_step_rows
        for lane in range(self._count):
            lane_start, lane_stop = even_share(rows, self._count, lane)
            first, last = max(lane_start, start), min(lane_stop, stop)
            if first < last:
                before = step * self._slots(lane)
                yield lane, before + first - lane_start, before + last - lane_start

    def _slots(self, lane: int) -> int:
        """Rows that a lane gives to a full step."""
        start, stop = even_share(self._rows_per_step, self._count, lane)
        return stop - start

    def _lane(self, number: int) -> Lane:
        if number not in self._lanes:
            # The slots of all steps before this lane's are the rows of the lanes before it.
            full = even_share(self._rows_per_step, self._count, number)
            rest = even_share(self._last_step_rows, self._count, number)
            start, stop = (self._full_steps * in_full + in_last for in_full, in_last in zip(full, rest, strict=True))
            seed = (self._shuffling.seed, self._epoch, number) if self._shuffling.shuffled else None
            window_tokens = self._shuffling.window_tokens // self._count
            self._lanes[number] = Lane(self._ring, start, stop, window_tokens, seed)
        return self._lanes[number]


@dataclass(frozen=True)
class _Window:
    """The rows of a window in order, and where its row groups are used for the last time."""

    refs: RowRefs

    groups: Offsets
    """Its row groups, shape (groups,)."""

    last_rows: Offsets
    """Index in `refs` of the last row of each group, shape (groups,)."""
