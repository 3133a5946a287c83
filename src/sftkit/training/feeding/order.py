"""The order in which training takes the rows of a split: on integers only, and from any position at once.

Row groups are dealt into windows of so many tokens, and rows are shuffled within a window: no more is read and held
than a window holds, however large the split is. A split that fits into one window is shuffled as a whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from sftkit.rows import Offsets
from sftkit.training.feeding.split_rows import SplitRows

Refs = npt.NDArray[np.int64]
"""Rows by (number of their row group, number within it), shape (rows, 2)."""

_WINDOWS_KEPT = 2  # a batch may begin in one and end in the next
_BLOCKS_SORTED = 50  # as transformers' LengthGroupedSampler: batches that are sorted by length together


@dataclass(frozen=True)
class Shuffling:
    """How rows are put in order.

    window: tokens that are shuffled together. seed: of the draws. shuffled: False for the order of the files.
    sorted_block: rows of a batch, where rows of similar length are to share one; None where length plays no part.
    """

    window: int
    seed: int
    shuffled: bool
    sorted_block: int | None = None


class Order(ABC):
    """Rows in order, in windows that grow or are all known."""

    def __init__(self, rows: SplitRows, shuffling: Shuffling, epoch: int) -> None:
        self._rows = rows
        self._shuffling = shuffling
        self._epoch = epoch
        self._kept: dict[int, Refs] = {}

    @abstractmethod
    def _window_at(self, number: int) -> tuple[int, list[int]] | None:
        """Position of a window's first row, and its row groups; None after the last."""

    @abstractmethod
    def _first_window(self, position: int) -> int:
        """The window that holds a position."""

    def rows(self, start: int, stop: int) -> Refs:
        """The rows at positions start to stop, stop left out; fewer where the order ends before."""
        parts: list[Refs] = [np.empty((0, 2), np.int64)]
        for number in count(self._first_window(start)):
            window = self._window_at(number)
            if window is None or window[0] >= stop:
                break
            parts.append(self._refs(number, window[1])[max(start - window[0], 0) : stop - window[0]])
        return np.concatenate(parts)

    def _windows_of(self, groups: Iterable[int]) -> Iterator[list[int]]:
        """Cut row groups, in order, where the next one would not fit into the window any more."""
        window: list[int] = []
        held = 0
        for group in groups:
            tokens = self._rows.places[group].tokens
            if window and held + tokens > self._shuffling.window:
                yield window
                window, held = [], 0
            window.append(group)
            held += tokens
        if window:
            yield window

    def _refs(self, number: int, groups: list[int]) -> Refs:
        """The rows of one window, in order; the last few windows are kept."""
        if number not in self._kept:
            while len(self._kept) >= _WINDOWS_KEPT:
                del self._kept[min(self._kept)]
            self._kept[number] = self._drawn(number, groups)
        return self._kept[number]

    def _drawn(self, number: int, groups: list[int]) -> Refs:
        numbers = [self._rows.rows_in(group) for group in groups]
        counts = np.array([len(within) for within in numbers], np.int64)
        refs = np.stack([np.repeat(np.array(groups, np.int64), counts), np.concatenate(numbers)], axis=1)
        if self._shuffling.shuffled:
            refs = refs[self._generator(number).permutation(len(refs))]
        block = self._shuffling.sorted_block
        return refs if block is None else self._sorted(refs, block, self._generator(number, 1))

    def _sorted(self, refs: Refs, block: int, generator: np.random.Generator) -> Refs:
        """Rows sorted by length, some blocks of them at a time; the blocks are shuffled again."""
        sizes = self._rows.sizes(refs)
        parts: list[Refs] = [np.empty((0, 2), np.int64)]
        for start in range(0, len(refs), block * _BLOCKS_SORTED):
            chunk = refs[start : start + block * _BLOCKS_SORTED]
            chunk = chunk[np.argsort(-sizes[start : start + len(chunk)], kind="stable")]
            blocks = [chunk[place : place + block] for place in range(0, len(chunk), block)]
            order = generator.permutation(len(blocks)) if self._shuffling.shuffled else range(len(blocks))
            parts += [blocks[place] for place in order]
        return np.concatenate(parts)

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self._shuffling.seed, self._epoch, *place])


class EpochOrder(Order):
    """Every row of a split once, row groups drawn from all files."""

    def __init__(self, rows: SplitRows, shuffling: Shuffling, epoch: int) -> None:
        super().__init__(rows, shuffling, epoch)
        groups = np.array([group for file in range(rows.files) for group in rows.groups_of(file)])
        if shuffling.shuffled:
            groups = np.random.default_rng([shuffling.seed, epoch]).permutation(groups)
        self.windows = list(self._windows_of(groups.tolist()))
        counts = [sum(rows.count_in(group) for group in window) for window in self.windows]
        self.starts: Offsets = np.cumsum([0, *counts])

    def _window_at(self, number: int) -> tuple[int, list[int]] | None:
        return (int(self.starts[number]), self.windows[number]) if number < len(self.windows) else None

    def _first_window(self, position: int) -> int:
        return int(np.searchsorted(self.starts, position, side="right")) - 1


class StreamOrder(Order):
    """The rows of a split over and over, file by file, opening no file before it is reached."""

    def __init__(self, rows: SplitRows, shuffling: Shuffling) -> None:
        super().__init__(rows, shuffling, 0)
        self._coming = self._all_windows()
        self._starts = [0]
        self._windows: list[list[int]] = []

    def _all_windows(self) -> Iterator[list[int]]:
        for turn in count():
            files = np.arange(self._rows.files)
            if self._shuffling.shuffled:
                files = np.random.default_rng([self._shuffling.seed, turn]).permutation(files)
            groups = (group for file in files.tolist() for group in self._rows.groups_of(file))
            yield from self._windows_of(groups)

    def _window_at(self, number: int) -> tuple[int, list[int]] | None:
        while number >= len(self._windows):
            window = next(self._coming)
            self._windows.append(window)
            self._starts.append(self._starts[-1] + sum(self._rows.count_in(group) for group in window))
        return self._starts[number], self._windows[number]

    def _first_window(self, position: int) -> int:
        while self._starts[-1] <= position:
            self._window_at(len(self._windows))
        return int(np.searchsorted(np.array(self._starts), position, side="right")) - 1
