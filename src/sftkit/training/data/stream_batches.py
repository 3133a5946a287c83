"""Lanes -> the micro-batches of a process that reads its own part of the data and nothing else."""

from __future__ import annotations

import logging

from sftkit.training.data.batching import Sharing, Steps, deal_out, kept_rows
from sftkit.training.data.epoch_order import Refs, Shuffling
from sftkit.training.data.split_rows import SplitRows
from sftkit.training.data.stream_lanes import Lanes, share
from sftkit.training.distributed import warn_once

_log = logging.getLogger(__name__)


class LaneBatches:
    """So many rows a micro-batch. A process takes the same part of every step, and knows only the lanes that it is of.

    There are as many lanes as the window has room for row groups, and at most one for each row of a step. A process
    holds what is left of the windows of its own lanes, its share of `shuffling.window` tokens, and the rows of a step.
    """

    def __init__(
        self, rows: SplitRows, shuffling: Shuffling, sharing: Sharing, rows_per_part: int, *, drop_last: bool
    ) -> None:
        self._rows = rows
        self._shuffling = shuffling
        self._sharing = sharing
        self._steps = Steps(kept_rows(rows, sharing, rows_per_part, drop_last=drop_last), rows_per_part, sharing)
        self._count = _lanes_for(rows, shuffling, self._steps)
        self._lanes: tuple[int, Lanes] | None = None
        self._dealt: tuple[tuple[int, int, int], list[Refs]] | None = None

    @property
    def per_epoch(self) -> int:
        """Micro-batches of one process in an epoch."""
        return self._steps.per_epoch

    def rows(self, epoch: int, number: int, process: int) -> Refs:
        """The rows of micro-batch `number` of an epoch for one process; what other processes have is not looked at."""
        step, part = divmod(number, self._sharing.accumulation)
        if self._dealt is None or self._dealt[0] != (epoch, step, process):
            lanes = self._lanes_of(epoch)
            mine = share(self._steps.rows_in(step), self._sharing.processes, process)
            refs = lanes.rows(step, *mine)
            sizes = self._rows.fetch(refs, lanes.groups_after(step, *mine))
            parts, most = self._steps.rounds(step), self._steps.rows_a_part
            dealt = deal_out(refs, sizes, parts, most, padded=self._sharing.padded)
            self._dealt = (epoch, step, process), dealt
        return self._dealt[1][part]

    def _lanes_of(self, epoch: int) -> Lanes:
        if self._lanes is None or self._lanes[0] != epoch:
            self._lanes = epoch, Lanes(self._rows, self._shuffling, epoch, self._count, self._steps.rows_a_step)
        return self._lanes[1]


def _lanes_for(rows: SplitRows, shuffling: Shuffling, steps: Steps) -> int:
    """How many lanes there are; where rows are not shuffled it is one, for their order is that of the files."""
    if not shuffling.shuffled:
        return 1
    # Every process looks into the first file in any case; in the others row groups are of about that size.
    first = next(file for file in range(rows.files) if rows.rows_of(file))
    largest = max(1, *(rows.places[group].tokens for group in rows.groups_of(first)))
    lanes = max(1, min(steps.rows_a_step, shuffling.window // largest))
    processes = steps.sharing.processes
    if lanes < processes:
        warn_once(
            _log,
            f"streaming: with shuffle_window={shuffling.window} some of the {processes} processes read the same row "
            f"groups; shuffle_window={processes * largest} gives each its own",
        )
    return lanes
