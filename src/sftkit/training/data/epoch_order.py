"""The order in which training takes the rows of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.training.data.rows.split_rows import RowRefs, SplitRows

NO_ROWS: RowRefs = np.empty((0, 2), np.int64)

_WINDOWS_KEPT = 2  # a batch can begin in one window and end in the next
_BLOCKS_SORTED = 50  # batches whose rows are sorted by length together, as in transformers' LengthGroupedSampler


@dataclass(frozen=True)
class Shuffling:
    """How rows are ordered."""

    window_tokens: int
    """Tokens that are shuffled together."""

    seed: int

    shuffled: bool
    """False for the order of the files."""

    length_block_rows: int | None = None
    """Rows of a step, if rows of similar length are to share one; None to ignore lengths."""


class EpochOrder:
    """The order of one epoch: every row of the split exactly once, shuffled with bounded memory.

    1. The row groups of all files are permuted.
    2. They are cut into windows of consecutive groups: a window ends where the next group would exceed
       `window_tokens`. (A larger group forms a window by itself.)
    3. The rows of each window are permuted.
    4. With `length_block_rows`, the rows of a window are also sorted by length, 50 blocks at a time, and the blocks are
       permuted, so that the rows of a block have similar lengths.

    Without shuffling, nothing is permuted. A split that fits into one window is shuffled as a whole; of a larger one,
    no more than a window of rows has to be in memory, because windows are used one after the other.

    Every permutation is seeded by (seed, epoch, window), so the order is the same in all processes and does not depend
    on which rows were asked for before. Steps 1 to 3 only need the numbers of rows, so a resumed run can start at any
    position without reading the rows before it. Only step 4 reads the rows of a window, for their lengths.
    """

    def __init__(self, rows: SplitRows, shuffling: Shuffling, epoch: int) -> None:
        self._rows = rows
        self._shuffling = shuffling
        self._epoch = epoch
        self._ordered: dict[int, RowRefs] = {}
        groups = np.array([group for file in range(rows.files) for group in rows.groups_of(file)])
        if shuffling.shuffled:
            groups = np.random.default_rng([shuffling.seed, epoch]).permutation(groups)
        self.windows = list(self._cut_windows(groups.tolist()))
        """Row groups of each window."""
        counts = [sum(rows.group_rows(group) for group in window) for window in self.windows]
        self.starts: Offsets = np.cumsum([0, *counts])
        """Position of the first row of each window, and of the end; shape (windows + 1,)."""

    def rows(self, start: int, stop: int) -> RowRefs:
        """The rows at positions start to stop (excluded); fewer if the order ends before."""
        parts = [NO_ROWS]
        for number in range(int(np.searchsorted(self.starts, start, side="right")) - 1, len(self.windows)):
            window_start = int(self.starts[number])
            if window_start >= stop:
                break
            parts.append(self._window(number)[max(start - window_start, 0) : stop - window_start])
        return np.concatenate(parts)

    def _cut_windows(self, groups: Iterable[int]) -> Iterator[list[int]]:
        window: list[int] = []
        window_tokens = 0
        for group in groups:
            tokens = self._rows.locations[group].tokens
            if window and window_tokens + tokens > self._shuffling.window_tokens:
                yield window
                window, window_tokens = [], 0
            window.append(group)
            window_tokens += tokens
        if window:
            yield window

    def _window(self, number: int) -> RowRefs:
        """The rows of one window in order; the latest windows are kept."""
        if number not in self._ordered:
            while len(self._ordered) >= _WINDOWS_KEPT:
                del self._ordered[min(self._ordered)]
            self._ordered[number] = self._order_window(number)
        return self._ordered[number]

    def _order_window(self, number: int) -> RowRefs:
        groups = self.windows[number]
        numbers = [self._rows.usable_rows(group) for group in groups]
        counts = np.array([len(in_group) for in_group in numbers], np.int64)
        refs = np.stack([np.repeat(np.array(groups, np.int64), counts), np.concatenate(numbers)], axis=1)
        if self._shuffling.shuffled:
            refs = refs[self._generator(number).permutation(len(refs))]
        block = self._shuffling.length_block_rows
        return refs if block is None else self._sort_by_length(refs, block, self._generator(number, 1))

    def _sort_by_length(self, refs: RowRefs, block: int, generator: np.random.Generator) -> RowRefs:
        sizes = self._rows.sizes(refs)
        parts = [NO_ROWS]
        for start in range(0, len(refs), block * _BLOCKS_SORTED):
            chunk = refs[start : start + block * _BLOCKS_SORTED]
            chunk = chunk[np.argsort(-sizes[start : start + len(chunk)], kind="stable")]
            blocks = [chunk[first : first + block] for first in range(0, len(chunk), block)]
            order = generator.permutation(len(blocks)) if self._shuffling.shuffled else range(len(blocks))
            parts += [blocks[index] for index in order]
        return np.concatenate(parts)

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self._shuffling.seed, self._epoch, *key])
