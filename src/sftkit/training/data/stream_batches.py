"""Micro-batches for streaming: each process reads only its own lanes."""

from __future__ import annotations

import logging

from sftkit.training.data.balancing import divide_step
from sftkit.training.data.batching import StepLayout, StepPlan, rows_per_epoch
from sftkit.training.data.epoch_order import Shuffling
from sftkit.training.data.rows.split_rows import RowRefs, SplitRows
from sftkit.training.data.stream_lanes import LaneSet, even_share
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)


class LaneBatcher:
    """Micro-batches with a fixed number of rows, from lanes (see `stream_lanes.py`).

    1. A process takes its share of the slots of a step, and so the same lanes in every step.
    2. It copies these rows out of their row groups, and keeps in memory only the groups that later steps need.
    3. It divides its rows into its own micro-batches. It does not know the lengths of the other processes' rows, so
       sizes are balanced only within the process.

    There are as many lanes as row groups fit into `window_tokens`, but at most one for each row of a step. A process
    holds the unused part of the windows of its lanes (its share of `window_tokens`), one more row group, and
    the rows of its step.
    """

    def __init__(
        self, rows: SplitRows, shuffling: Shuffling, layout: StepLayout, rows_per_micro_batch: int, *, drop_last: bool
    ) -> None:
        self._rows = rows
        self._shuffling = shuffling
        self._layout = layout
        count = rows_per_epoch(rows, layout, rows_per_micro_batch, drop_last=drop_last)
        self._plan = StepPlan(count, rows_per_micro_batch, layout)
        self._lane_count = _count_lanes(rows, shuffling, self._plan)
        # The latest epoch and step, as micro-batches are asked for in order.
        self._lanes: tuple[int, LaneSet] | None = None
        self._parts: tuple[tuple[int, int, int], list[RowRefs]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""
        return self._plan.batches_per_epoch

    def rows(self, epoch: int, number: int, process: int) -> RowRefs:
        """The rows of micro-batch `number` of an epoch for one process; the rows of other processes are not read."""
        step, in_step = divmod(number, self._layout.accumulation_steps)
        if self._parts is None or self._parts[0] != (epoch, step, process):
            lanes = self._lanes_of(epoch)
            slots = even_share(self._plan.rows_in(step), self._layout.processes, process)
            refs = lanes.rows(step, *slots)
            sizes = self._rows.fetch(refs, lanes.groups_needed_after(step, *slots))
            parts, most = self._plan.batches_in(step), self._plan.rows_per_micro_batch
            divided = divide_step(sizes, 1, parts, most, padded=self._layout.padded)
            self._parts = (epoch, step, process), [refs[part] for part in divided]
        return self._parts[1][in_step]

    def _lanes_of(self, epoch: int) -> LaneSet:
        if self._lanes is None or self._lanes[0] != epoch:
            lanes = LaneSet(self._rows, self._shuffling, epoch, self._lane_count, self._plan.rows_per_step)
            self._lanes = epoch, lanes
        return self._lanes[1]


def _count_lanes(rows: SplitRows, shuffling: Shuffling, plan: StepPlan) -> int:
    """How many lanes there are: one without shuffling, because rows then keep the order of the files."""
    if not shuffling.shuffled:
        return 1
    # The first file stands for all: every process reads its footer, and row groups of the others have a similar size.
    first = next(file for file in range(rows.files) if rows.file_rows(file))
    largest = max(1, *(rows.locations[group].tokens for group in rows.groups_of(first)))
    lanes = max(1, min(plan.rows_per_step, shuffling.window_tokens // largest))
    processes = plan.layout.processes
    if lanes < processes:
        warn_on_main_process(
            _log,
            f"streaming: with shuffle_window={shuffling.window_tokens} some of the {processes} processes read the same "
            f"row groups; set shuffle_window={processes * largest} to give each process its own",
        )
    return lanes
