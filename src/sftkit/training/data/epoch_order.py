"""The order in which training takes the rows of a split: on integers only, and from any position at once.

Row groups are dealt into windows of so many tokens, and rows are shuffled within a window: no more is read and held
than a window holds, however large the split is. A split that fits into one window is shuffled as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Offsets
from sftkit.training.data.split_rows import SplitRows

RowRefs = npt.NDArray[np.int64]
"""Rows by (number of their row group, number within it), shape (rows, 2)."""

NO_ROWS: RowRefs = np.empty((0, 2), np.int64)

_WINDOWS_KEPT = 2  # a batch may begin in one and end in the next
_BLOCKS_SORTED = 50  # as transformers' LengthGroupedSampler: batches that are sorted by length together


@dataclass(frozen=True)
class Shuffling:
    """How rows are put in order.

    window: tokens that are shuffled together. seed: of the draws. shuffled: False for the order of the files.
    length_block_rows: rows of a batch, where rows of similar length are to share one; None where length plays no part.
    """

    window_tokens: int
    seed: int
    shuffled: bool
    length_block_rows: int | None = None


class EpochOrder:
    """Every row of a split once, row groups drawn from all files."""

    def __init__(self, rows: SplitRows, shuffling: Shuffling, epoch: int) -> None:
        self._rows = rows
        self._shuffling = shuffling
        self._epoch = epoch
        self._kept: dict[int, RowRefs] = {}
        groups = np.array([group for file in range(rows.files) for group in rows.groups_of(file)])
        if shuffling.shuffled:
            groups = np.random.default_rng([shuffling.seed, epoch]).permutation(groups)
        self.windows = list(self._windows_of(groups.tolist()))
        counts = [sum(rows.group_rows(group) for group in window) for window in self.windows]
        self.starts: Offsets = np.cumsum([0, *counts])

    def rows(self, start: int, stop: int) -> RowRefs:
        """The rows at positions start to stop, stop left out; fewer where the order ends before."""
        parts = [NO_ROWS]
        for number in range(int(np.searchsorted(self.starts, start, side="right")) - 1, len(self.windows)):
            begun = int(self.starts[number])
            if begun >= stop:
                break
            parts.append(self._refs(number)[max(start - begun, 0) : stop - begun])
        return np.concatenate(parts)

    def _windows_of(self, groups: Iterable[int]) -> Iterator[list[int]]:
        """Cut row groups, in order, where the next one would not fit into the window any more."""
        window: list[int] = []
        held = 0
        for group in groups:
            tokens = self._rows.locations[group].tokens
            if window and held + tokens > self._shuffling.window_tokens:
                yield window
                window, held = [], 0
            window.append(group)
            held += tokens
        if window:
            yield window

    def _refs(self, number: int) -> RowRefs:
        """The rows of one window, in order; the last few windows are kept."""
        if number not in self._kept:
            while len(self._kept) >= _WINDOWS_KEPT:
                del self._kept[min(self._kept)]
            self._kept[number] = self._drawn(number)
        return self._kept[number]

    def _drawn(self, number: int) -> RowRefs:
        groups = self.windows[number]
        numbers = [self._rows.usable_rows(group) for group in groups]
        counts = np.array([len(within) for within in numbers], np.int64)
        refs = np.stack([np.repeat(np.array(groups, np.int64), counts), np.concatenate(numbers)], axis=1)
        if self._shuffling.shuffled:
            refs = refs[self._generator(number).permutation(len(refs))]
        block = self._shuffling.length_block_rows
        return refs if block is None else self._sorted(refs, block, self._generator(number, 1))

    def _sorted(self, refs: RowRefs, block: int, generator: np.random.Generator) -> RowRefs:
        """Rows sorted by length, some blocks of them at a time; the blocks are shuffled again."""
        sizes = self._rows.sizes(refs)
        parts = [NO_ROWS]
        for start in range(0, len(refs), block * _BLOCKS_SORTED):
            chunk = refs[start : start + block * _BLOCKS_SORTED]
            chunk = chunk[np.argsort(-sizes[start : start + len(chunk)], kind="stable")]
            blocks = [chunk[place : place + block] for place in range(0, len(chunk), block)]
            order = generator.permutation(len(blocks)) if self._shuffling.shuffled else range(len(blocks))
            parts += [blocks[place] for place in order]
        return np.concatenate(parts)

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self._shuffling.seed, self._epoch, *place])
