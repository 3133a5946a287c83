"""Lanes -> the micro-batches of a process that reads its own part of the data and nothing else."""

from __future__ import annotations

import logging

from sftkit.training.data.batching import StepLayout, StepPlan, rows_per_epoch, split_into_micro_batches
from sftkit.training.data.epoch_order import RowRefs, Shuffling
from sftkit.training.data.split_rows import SplitRows
from sftkit.training.data.stream_lanes import LaneSet, even_share
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)


class LaneBatcher:
    """So many rows a micro-batch. A process takes the same part of every step, and knows only the lanes that it is of.

    There are as many lanes as the window has room for row groups, and at most one for each row of a step. A process
    holds what is left of the windows of its own lanes, its share of `window_tokens`, and the rows of a step.
    """

    def __init__(
        self, rows: SplitRows, shuffling: Shuffling, layout: StepLayout, rows_per_micro_batch: int, *, drop_last: bool
    ) -> None:
        self._rows = rows
        self._shuffling = shuffling
        self._layout = layout
        self._steps = StepPlan(
            rows_per_epoch(rows, layout, rows_per_micro_batch, drop_last=drop_last), rows_per_micro_batch, layout
        )
        self._count = _lanes_for(rows, shuffling, self._steps)
        self._lanes: tuple[int, LaneSet] | None = None
        self._dealt: tuple[tuple[int, int, int], list[RowRefs]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""
        return self._steps.batches_per_epoch

    def rows(self, epoch: int, number: int, process: int) -> RowRefs:
        """The rows of micro-batch `number` of an epoch for one process; what other processes have is not looked at."""
        step, part = divmod(number, self._layout.accumulation_steps)
        if self._dealt is None or self._dealt[0] != (epoch, step, process):
            lanes = self._lanes_of(epoch)
            mine = even_share(self._steps.rows_in(step), self._layout.processes, process)
            refs = lanes.rows(step, *mine)
            sizes = self._rows.fetch(refs, lanes.groups_needed_after(step, *mine))
            parts, most = self._steps.batches_in(step), self._steps.rows_per_micro_batch
            dealt = split_into_micro_batches(refs, sizes, parts, most, padded=self._layout.padded)
            self._dealt = (epoch, step, process), dealt
        return self._dealt[1][part]

    def _lanes_of(self, epoch: int) -> LaneSet:
        if self._lanes is None or self._lanes[0] != epoch:
            self._lanes = epoch, LaneSet(self._rows, self._shuffling, epoch, self._count, self._steps.rows_per_step)
        return self._lanes[1]


def _lanes_for(rows: SplitRows, shuffling: Shuffling, steps: StepPlan) -> int:
    """How many lanes there are; where rows are not shuffled it is one, for their order is that of the files."""
    if not shuffling.shuffled:
        return 1
    # Every process looks into the first file in any case; in the others row groups are of about that size.
    first = next(file for file in range(rows.files) if rows.file_rows(file))
    largest = max(1, *(rows.locations[group].tokens for group in rows.groups_of(first)))
    lanes = max(1, min(steps.rows_per_step, shuffling.window_tokens // largest))
    processes = steps.layout.processes
    if lanes < processes:
        warn_on_main_process(
            _log,
            f"streaming: with shuffle_window={shuffling.window_tokens} some of the {processes} processes read the same "
            f"row groups; shuffle_window={processes * largest} gives each its own",
        )
    return lanes
