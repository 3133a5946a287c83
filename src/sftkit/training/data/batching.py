"""Rows in order -> the micro-batches of every process, the same rows a step however many processes there are.

A step takes the next rows of the order. How they fall into micro-batches changes nothing but speed, since the loss is
the mean over the trained tokens of the whole step; so they are dealt such that the work is spread evenly.
"""

from __future__ import annotations

import heapq
import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.training.data.epoch_order import NO_ROWS, EpochOrder, RowRefs, Shuffling
from sftkit.training.data.split_rows import SplitRows
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepLayout:
    """How a step is shared out.

    accumulation: micro-batches of one process in a step. processes: that train together. padded: rows of a
    micro-batch are padded to the longest, so that similar lengths should share one.
    """

    accumulation_steps: int
    processes: int
    padded: bool

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a full step."""
        return self.accumulation_steps * self.processes


@dataclass(frozen=True)
class StepPlan:
    """How the rows of an epoch fall into steps, the last of which takes what is left.

    count: rows of the epoch. rows_per_micro_batch: rows of a micro-batch at most.
    """

    rows: int
    rows_per_micro_batch: int
    layout: StepLayout

    @property
    def rows_per_step(self) -> int:
        """Rows of a full step, in all processes together."""
        return self.rows_per_micro_batch * self.layout.micro_batches

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""
        full = self.rows // self.rows_per_step
        return full * self.layout.accumulation_steps + self.batches_in(full)

    def rows_in(self, step: int) -> int:
        """Rows of a step, in all processes together; none after the last."""
        return max(0, min(self.rows_per_step, self.rows - step * self.rows_per_step))

    def batches_in(self, step: int) -> int:
        """Micro-batches of one process in a step; as many in every process, though some may be without a row."""
        return -(-self.rows_in(step) // (self.rows_per_micro_batch * self.layout.processes))


class Batcher(Protocol):
    """The micro-batches of every epoch."""

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""

    def rows(self, epoch: int, number: int, process: int) -> RowRefs:
        """The rows of micro-batch `number` of an epoch for one process; they may be none."""


class RowBatcher:
    """So many rows a micro-batch. A step at the end of an epoch takes what is left, or is dropped."""

    def __init__(
        self, rows: SplitRows, shuffling: Shuffling, layout: StepLayout, rows_per_micro_batch: int, *, drop_last: bool
    ) -> None:
        self._rows = rows
        self._shuffling = shuffling
        self._layout = layout
        self._steps = StepPlan(
            rows_per_epoch(rows, layout, rows_per_micro_batch, drop_last=drop_last), rows_per_micro_batch, layout
        )
        self._order: tuple[int, EpochOrder] | None = None
        self._dealt: tuple[tuple[int, int], list[RowRefs]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""
        return self._steps.batches_per_epoch

    def rows(self, epoch: int, number: int, process: int) -> RowRefs:
        """The rows of micro-batch `number` of an epoch for one process."""
        step, part = divmod(number, self._layout.accumulation_steps)
        if self._dealt is None or self._dealt[0] != (epoch, step):
            if self._order is None or self._order[0] != epoch:
                self._order = epoch, EpochOrder(self._rows, self._shuffling, epoch)
            start = step * self._steps.rows_per_step
            refs = self._order[1].rows(start, start + self._steps.rows_in(step))
            parts = self._steps.batches_in(step) * self._layout.processes
            most, padded = self._steps.rows_per_micro_batch, self._layout.padded
            dealt = (
                [refs]
                if parts == 1
                else split_into_micro_batches(refs, self._rows.sizes(refs), parts, most, padded=padded)
            )
            self._dealt = (epoch, step), dealt
        return self._dealt[1][part * self._layout.processes + process]


class TokenBatcher:
    """At most so many tokens a micro-batch (with `padded`, those of padding count); a longer row is alone in one.

    Which rows share a micro-batch is decided once, as for packs; the order of micro-batches is drawn every epoch,
    within the windows of the first epoch and among them. The lengths of all rows are read at the start.
    """

    def __init__(
        self, rows: SplitRows, shuffling: Shuffling, layout: StepLayout, tokens: int, *, drop_last: bool
    ) -> None:
        self._shuffling = shuffling
        self._layout = layout
        self._order = EpochOrder(rows, shuffling, 0)
        self._windows: list[list[tuple[int, int]]] = []
        for start, stop in pairwise(self._order.starts.tolist()):
            sizes = rows.sizes(self._order.rows(start, stop))
            cuts = _cuts(sizes, tokens, padded=layout.padded)
            self._windows.append([(start + a, start + b) for a, b in pairwise(cuts)])
        count = sum(map(len, self._windows))
        self._count = _whole_steps(count, layout.micro_batches) if drop_last else count
        self._drawn: tuple[int, list[tuple[int, int]]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""
        return -(-self._count // self._layout.processes)

    def rows(self, epoch: int, number: int, process: int) -> RowRefs:
        """The rows of micro-batch `number` of an epoch for one process."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self._draw(epoch)[: self._count]
        place = number * self._layout.processes + process
        batches = self._drawn[1]
        return self._order.rows(*batches[place]) if place < len(batches) else NO_ROWS

    def _draw(self, epoch: int) -> list[tuple[int, int]]:
        if not self._shuffling.shuffled:
            return [batch for window in self._windows for batch in window]
        generator = np.random.default_rng([self._shuffling.seed, epoch])
        drawn: list[tuple[int, int]] = []
        for number in generator.permutation(len(self._windows)).tolist():
            window = self._windows[number]
            drawn += [window[place] for place in generator.permutation(len(window)).tolist()]
        return drawn


def _whole_steps(count: int, step: int) -> int:
    """So many of some rows (or batches) fill whole steps; all of them, where they do not fill one."""
    if count < step:
        warn_on_main_process(
            _log,
            f"dataloader_drop_last would drop every row: there are {count} and a step takes {step}; "
            "the last batch is kept",
        )
        return count
    return count - count % step


def rows_per_epoch(rows: SplitRows, layout: StepLayout, rows_per_micro_batch: int, *, drop_last: bool) -> int:
    """Rows of an epoch: all of them, or those of whole steps."""
    return _whole_steps(len(rows), rows_per_micro_batch * layout.micro_batches) if drop_last else len(rows)


def split_into_micro_batches(refs: RowRefs, sizes: Offsets, parts: int, most: int, *, padded: bool) -> list[RowRefs]:
    """Rows in micro-batches of nearly equal size (similar length with `padded`), of `most` rows, the largest first."""
    dealt = split_by_length(sizes, parts) if padded else balance_by_size(sizes, parts, most)
    # The processes wait for each other after every micro-batch: those of one round should be equally large.
    dealt.sort(key=lambda part: -int(sizes[part].sum()))
    return [refs[part] for part in dealt]


def balance_by_size(sizes: Offsets, parts: int, most: int) -> list[list[int]]:
    """Deal rows into parts of nearly equal size, largest first to the smallest part (Graham's LPT rule, 1969).

    Args:
        sizes: tokens of each row, shape (rows,), at most parts * most rows.
        parts: how many parts.
        most: rows that a part may have.

    Returns:
        the rows of each part by index, in order.
    """
    heap = [(0, part) for part in range(parts)]
    dealt: list[list[int]] = [[] for _ in range(parts)]
    for row in np.argsort(-sizes, kind="stable").tolist():
        weight, part = heapq.heappop(heap)
        dealt[part].append(row)
        if len(dealt[part]) < most:
            heapq.heappush(heap, (weight + int(sizes[row]), part))
    return [sorted(part) for part in dealt]


def split_by_length(sizes: Offsets, parts: int) -> list[list[int]]:
    """Rows by index in parts of (nearly) equally many, each with rows of similar length."""
    return [sorted(part.tolist()) for part in np.array_split(np.argsort(-sizes, kind="stable"), parts)]


def _cuts(sizes: Offsets, tokens: int, *, padded: bool) -> list[int]:
    """Where rows in order are cut so that no part has more tokens than allowed (next-fit)."""
    cuts = [0]
    if not padded:
        ends = np.cumsum(sizes)
        while cuts[-1] < len(sizes):
            begun = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
            cuts.append(max(int(np.searchsorted(ends, begun + tokens, side="right")), cuts[-1] + 1))
        return cuts
    longest = 0
    for row, size in enumerate(sizes.tolist()):
        longest = max(longest, size)
        if row > cuts[-1] and longest * (row + 1 - cuts[-1]) > tokens:
            cuts.append(row)
            longest = size
    return [*cuts, len(sizes)]
