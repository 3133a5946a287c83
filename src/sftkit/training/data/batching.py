"""Divide the rows of an epoch into steps, and each step into the micro-batches of all processes.

A step takes the same rows whatever the number of processes, as long as it takes as many. How they are divided into
micro-batches only affects speed, because the loss is the mean over the trained tokens of the whole step.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.training.data.balancing import divide_step
from sftkit.training.data.epoch_order import NO_ROWS, EpochOrder, Shuffling
from sftkit.training.data.rows.split_rows import RowRefs, SplitRows
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepLayout:
    """How a step is divided into micro-batches."""

    accumulation_steps: int
    """Micro-batches of one process in a step."""

    processes: int
    """Processes that train together."""

    padded: bool
    """Whether the rows of a micro-batch are padded to the longest, so that they should have similar lengths."""

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a full step, of all processes together."""
        return self.accumulation_steps * self.processes


@dataclass(frozen=True)
class StepPlan:
    """How the rows of an epoch are divided into steps; the last step takes the remaining rows.

    Example:
        >>> plan = StepPlan(rows=21, rows_per_micro_batch=2, layout=StepLayout(2, 2, False))
        >>> plan.rows_per_step, [plan.rows_in(step) for step in range(4)], [plan.batches_in(step) for step in range(4)]
        (8, [8, 8, 5, 0], [2, 2, 2, 0])
    """

    rows: int
    """Rows of an epoch."""

    rows_per_micro_batch: int
    """The most rows of a micro-batch."""

    layout: StepLayout

    @property
    def rows_per_step(self) -> int:
        """Rows of a full step, of all processes together."""
        return self.rows_per_micro_batch * self.layout.micro_batches

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""
        full_steps = self.rows // self.rows_per_step
        return full_steps * self.layout.accumulation_steps + self.batches_in(full_steps)

    def rows_in(self, step: int) -> int:
        """Rows of a step, of all processes together; 0 after the last step."""
        return max(0, min(self.rows_per_step, self.rows - step * self.rows_per_step))

    def batches_in(self, step: int) -> int:
        """Micro-batches of one process in a step. Every process has as many, even if some of them are empty."""
        return -(-self.rows_in(step) // (self.rows_per_micro_batch * self.layout.processes))


class Batcher(Protocol):
    """Decides which rows each micro-batch of each epoch has."""

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""

    def rows(self, epoch: int, number: int, process: int) -> RowRefs:
        """The rows of micro-batch `number` of an epoch for one process; possibly none."""


class RowBatcher:
    """Micro-batches with a fixed number of rows.

    1. Step s takes the next `rows_per_step` rows of the epoch's order. The last step of an epoch takes the remaining
       rows, or is dropped.
    2. They are divided over processes and micro-batches so that all processes get nearly the same number of tokens
       (`divide_step`).
    """

    def __init__(
        self, rows: SplitRows, shuffling: Shuffling, layout: StepLayout, rows_per_micro_batch: int, *, drop_last: bool
    ) -> None:
        self._rows = rows
        self._shuffling = shuffling
        self._layout = layout
        count = rows_per_epoch(rows, layout, rows_per_micro_batch, drop_last=drop_last)
        self._plan = StepPlan(count, rows_per_micro_batch, layout)
        # The latest epoch and step, as micro-batches are asked for in order.
        self._order: tuple[int, EpochOrder] | None = None
        self._parts: tuple[tuple[int, int], list[RowRefs]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""
        return self._plan.batches_per_epoch

    def rows(self, epoch: int, number: int, process: int) -> RowRefs:
        """The rows of micro-batch `number` of an epoch for one process."""
        step, in_step = divmod(number, self._layout.accumulation_steps)
        if self._parts is None or self._parts[0] != (epoch, step):
            self._parts = (epoch, step), self._divide(epoch, step)
        return self._parts[1][in_step * self._layout.processes + process]

    def _divide(self, epoch: int, step: int) -> list[RowRefs]:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, EpochOrder(self._rows, self._shuffling, epoch)
        start = step * self._plan.rows_per_step
        refs = self._order[1].rows(start, start + self._plan.rows_in(step))
        batches, processes, most = self._plan.batches_in(step), self._layout.processes, self._plan.rows_per_micro_batch
        if batches * processes == 1:
            return [refs]
        divided = divide_step(self._rows.sizes(refs), processes, batches, most, padded=self._layout.padded)
        return [refs[part] for part in divided]


class TokenBatcher:
    """Micro-batches with at most a fixed number of tokens, including padding if they are padded.

    1. The rows of each window of the first epoch's order are cut into micro-batches: one ends where the next row would
       exceed the limit. A row longer than the limit forms a micro-batch by itself.
    2. Every epoch permutes the windows, and the micro-batches within each window.
    3. A step takes the next micro-batches, as many as all processes compute in it, whatever their number. Of several
       processes, each gets nearly the same number of tokens: the rows of the step are divided again (`divide_step`).
       If a micro-batch would exceed the limit then, or if rows are padded, they stay as they were cut, and are dealt to
       the processes in turn: micro-batch m of process p is number m * processes + p of the step.

    Which rows share a step depends on the lengths of all rows, so all rows are read once at the start.
    """

    def __init__(
        self, rows: SplitRows, shuffling: Shuffling, layout: StepLayout, tokens: int, *, drop_last: bool
    ) -> None:
        self._rows = rows
        self._shuffling = shuffling
        self._layout = layout
        self._tokens = tokens
        self._order = EpochOrder(rows, shuffling, 0)
        # Start and stop of the micro-batches of each window, as positions in the order of the first epoch.
        self._windows: list[list[tuple[int, int]]] = []
        for start, stop in pairwise(self._order.starts.tolist()):
            sizes = rows.sizes(self._order.rows(start, stop))
            cuts = _cuts(sizes, tokens, padded=layout.padded)
            self._windows.append([(start + a, start + b) for a, b in pairwise(cuts)])
        count = sum(map(len, self._windows))
        self._count = _whole_steps(count, layout.micro_batches) if drop_last else count
        self._epoch_batches: tuple[int, list[tuple[int, int]]] | None = None
        self._parts: tuple[tuple[int, int], list[RowRefs]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""
        return -(-self._count // self._layout.processes)

    def rows(self, epoch: int, number: int, process: int) -> RowRefs:
        """The rows of micro-batch `number` of an epoch for one process."""
        step, in_step = divmod(number, self._layout.accumulation_steps)
        if self._parts is None or self._parts[0] != (epoch, step):
            self._parts = (epoch, step), self._divide(epoch, step)
        index, parts = in_step * self._layout.processes + process, self._parts[1]
        return parts[index] if index < len(parts) else NO_ROWS

    def _divide(self, epoch: int, step: int) -> list[RowRefs]:
        if self._epoch_batches is None or self._epoch_batches[0] != epoch:
            self._epoch_batches = epoch, self._permute(epoch)[: self._count]
        first = step * self._layout.micro_batches
        cut = [self._order.rows(*each) for each in self._epoch_batches[1][first : first + self._layout.micro_batches]]
        if self._layout.padded or self._layout.processes == 1:
            return cut
        refs = np.concatenate(cut)
        sizes, batches = self._rows.sizes(refs), -(-len(cut) // self._layout.processes)
        divided = divide_step(sizes, self._layout.processes, batches, len(refs), padded=False)
        fits = all(len(part) < 2 or sizes[part].sum() <= self._tokens for part in divided)
        return [refs[part] for part in divided] if fits else cut

    def _permute(self, epoch: int) -> list[tuple[int, int]]:
        if not self._shuffling.shuffled:
            return [batch for window in self._windows for batch in window]
        generator = np.random.default_rng([self._shuffling.seed, epoch])
        batches: list[tuple[int, int]] = []
        for number in generator.permutation(len(self._windows)).tolist():
            window = self._windows[number]
            batches += [window[index] for index in generator.permutation(len(window)).tolist()]
        return batches


def _whole_steps(count: int, step: int) -> int:
    """How many of `count` rows (or micro-batches) fill whole steps; all of them if they do not fill even one."""
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


def _cuts(sizes: Offsets, tokens: int, *, padded: bool) -> list[int]:
    """Cut rows in order so that no part exceeds the limit (next-fit): the start of each part, and the end."""
    cuts = [0]
    if not padded:
        ends = np.cumsum(sizes)
        while cuts[-1] < len(sizes):
            before = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
            cuts.append(max(int(np.searchsorted(ends, before + tokens, side="right")), cuts[-1] + 1))
        return cuts
    longest = 0
    for row, size in enumerate(sizes.tolist()):
        longest = max(longest, size)
        if row > cuts[-1] and longest * (row + 1 - cuts[-1]) > tokens:
            cuts.append(row)
            longest = size
    return [*cuts, len(sizes)]
