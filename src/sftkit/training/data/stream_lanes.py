"""The order of an epoch as lanes side by side, so that a process that takes its rows from some reads those alone.

Every step takes as many rows from a lane as the one before. How many lanes there are, and which rows they give to a
step, does not depend on the number of processes; each of these takes its part of every step, and so the same lanes all
the time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.training.data.epoch_order import NO_ROWS, RowRefs, Shuffling
from sftkit.training.data.split_rows import SplitRows


def even_share(count: int, parts: int, number: int) -> tuple[int, int]:
    """Begin and end of one of so many nearly equal parts, which together are 0 to `count`."""
    return number * count // parts, (number + 1) * count // parts


@dataclass(frozen=True)
class LaneSegment:
    """Rows `first` to `last` of a row group, `last` left out. tokens: of the whole group, as it is read as a whole."""

    group: int
    first: int
    last: int
    tokens: int


class RowRing:
    """All rows of a split end to end, file by file, in the order of an epoch; no file is opened before it is reached.

    Shuffled, the order of files is drawn, and so is the row that comes first: what is a lane's in one epoch is not in
    the next.
    """

    def __init__(self, rows: SplitRows, shuffling: Shuffling, epoch: int) -> None:
        counts = np.array([rows.file_rows(file) for file in range(rows.files)], np.int64)
        files = np.arange(rows.files)
        self._turned = 0
        if shuffling.shuffled:
            generator = np.random.default_rng([shuffling.seed, epoch])
            files = generator.permutation(files)
            self._turned = int(generator.integers(counts.sum()))
        self._rows = rows
        self._files = files
        self._ends: Offsets = np.cumsum(counts[files])
        self._counts: Offsets = counts[files]

    def segments(self, start: int, stop: int) -> Iterator[LaneSegment]:
        """The rows at positions start to stop, stop left out, in order; a footer is read when its file is reached.

        Raises:
            SourceError, DataError: a file cannot be read.
        """
        total = int(self._ends[-1])
        while start < stop:
            place = (start + self._turned) % total
            number = int(np.searchsorted(self._ends, place, side="right"))
            count = int(self._counts[number])
            first = place - int(self._ends[number]) + count
            last = min(first + stop - start, count)
            yield from self._within(int(self._files[number]), first, last)
            start += last - first

    def _within(self, file: int, first: int, last: int) -> Iterator[LaneSegment]:
        """Rows first to last of a file."""
        begun = 0
        for group in self._rows.groups_of(file):
            place = self._rows.locations[group]
            segment = LaneSegment(group, max(first - begun, 0), min(last - begun, place.rows), place.tokens)
            if segment.first < segment.last:
                yield segment
            begun += place.rows


class Lane:
    """Some consecutive rows of a circle, shuffled in windows, which are cut and drawn as they are reached."""

    def __init__(self, circle: RowRing, start: int, stop: int, tokens: int, draws: tuple[int, ...] | None) -> None:
        """Begin at the start.

        Args:
            circle: of the epoch.
            start, stop: the lane's rows by their positions on the circle.
            tokens: of a window at most, if it is more than one row group.
            draws: what seeds them, besides the window's number; None for rows in order.
        """
        self._circle = circle
        self._start = start
        self._stop = stop
        self._tokens = tokens
        self._draws = draws
        self._starts = [0]  # of every window that was found, and of the one after
        self._windows: list[list[LaneSegment]] = []
        self._drawn: dict[int, _Drawn] = {}

    def rows(self, start: int, stop: int) -> RowRefs:
        """The lane's rows from number start to stop, stop left out."""
        parts = [NO_ROWS]
        for number in self._numbers(start, stop):
            begun = self._starts[number]
            parts.append(self._refs(number).refs[max(start - begun, 0) : stop - begun])
        return np.concatenate(parts)

    def groups_needed_after(self, start: int, stop: int) -> set[int]:
        """Row groups with a row from number stop on, in the window that is begun by then."""
        last = self._numbers(start, stop)[-1]
        drawn = self._refs(last)
        return set(drawn.groups[drawn.lasts >= stop - self._starts[last]].tolist())

    def _numbers(self, start: int, stop: int) -> range:
        """The windows that hold rows start to stop; those before them are forgotten."""
        while self._starts[-1] < stop:
            window = self._cut(self._start + self._starts[-1])
            self._windows.append(window)
            self._starts.append(self._starts[-1] + sum(segment.last - segment.first for segment in window))
        first = bisect_right(self._starts, start) - 1
        for number in [number for number in self._drawn if number < first]:
            del self._drawn[number]
        return range(first, bisect_left(self._starts, stop))

    def _cut(self, position: int) -> list[LaneSegment]:
        """The window that begins at a position of the circle."""
        window: list[LaneSegment] = []
        held = 0
        for segment in self._circle.segments(position, self._stop):
            if window and held + segment.tokens > self._tokens:
                break
            window.append(segment)
            held += segment.tokens
        return window

    def _refs(self, number: int) -> _Drawn:
        if number not in self._drawn:
            parts = [(np.full(each.last - each.first, each.group), np.arange(each.first, each.last))
                     for each in self._windows[number]]  # fmt: skip
            refs: RowRefs = np.concatenate([np.stack(part, axis=1) for part in parts])
            if self._draws is not None:
                refs = refs[np.random.default_rng([*self._draws, number]).permutation(len(refs))]
            groups, lasts = np.unique(refs[::-1, 0], return_index=True)
            self._drawn[number] = _Drawn(refs, groups, len(refs) - 1 - lasts)
        return self._drawn[number]


class LaneSet:
    """The lanes of one epoch. Each has its places in a step, the same in every step, but for the last, shorter one."""

    def __init__(self, rows: SplitRows, shuffling: Shuffling, epoch: int, count: int, rows_per_step: int) -> None:
        self._shuffling = shuffling
        self._epoch = epoch
        self._count = count
        self._rows_a_step = rows_per_step
        self._steps, self._rest = divmod(len(rows), rows_per_step)
        self._circle = RowRing(rows, shuffling, epoch)
        self._lanes: dict[int, Lane] = {}

    def rows(self, step: int, start: int, stop: int) -> RowRefs:
        """The rows at places start to stop of a step, stop left out; only their lanes are looked at."""
        taken = (self._lane(lane).rows(first, last) for lane, first, last in self._numbers(step, start, stop))
        return np.concatenate([NO_ROWS, *taken])

    def groups_needed_after(self, step: int, start: int, stop: int) -> set[int]:
        """The row groups that whoever takes these places of every step should hold after it."""
        lanes = self._numbers(step, start, stop)
        return set().union(*(self._lane(lane).groups_needed_after(first, last) for lane, first, last in lanes))

    def _numbers(self, step: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Lanes with the numbers of their first row and the one after their last at these places of a step."""
        rows = self._rows_a_step if step < self._steps else self._rest
        for lane in range(self._count):
            begin, end = even_share(rows, self._count, lane)
            first, last = max(begin, start), min(end, stop)
            if first < last:
                before = step * self._quota(lane)
                yield lane, before + first - begin, before + last - begin

    def _quota(self, lane: int) -> int:
        """Rows that a lane gives to a full step."""
        begin, end = even_share(self._rows_a_step, self._count, lane)
        return end - begin

    def _lane(self, number: int) -> Lane:
        if number not in self._lanes:
            full, last = even_share(self._rows_a_step, self._count, number), even_share(self._rest, self._count, number)
            start, stop = (self._steps * of_full + of_last for of_full, of_last in zip(full, last, strict=True))
            draws = (self._shuffling.seed, self._epoch, number) if self._shuffling.shuffled else None
            self._lanes[number] = Lane(self._circle, start, stop, self._shuffling.window_tokens // self._count, draws)
        return self._lanes[number]


@dataclass(frozen=True)
class _Drawn:
    """The rows of a window in order, with its row groups and the place of the last row of each, shape (groups,)."""

    refs: RowRefs
    groups: Offsets
    lasts: Offsets
