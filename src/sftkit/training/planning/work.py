"""How much work an epoch is: tokens, padding, and positions of the output head."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.training.data.batching import Batcher
from sftkit.training.data.feed import Feed
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.data.work_counts import WorkCounts

_MOST_TOKENS = 4_000_000
"""Tokens that are read to estimate an epoch."""


@dataclass(frozen=True)
class EpochWork:
    """Work of one epoch, of all processes together."""

    tokens: float
    trained_tokens: float
    slots: float
    squared_lengths: float
    head_positions: float

    measured: float
    """Share of the epoch's micro-batches that was read, 0 to 1; the counts are exact if it is 1."""


def measure_epoch(feed: Feed, batches: Batcher) -> tuple[EpochWork, list[TokenSequences]]:
    """Read the first micro-batches of a run, about four million tokens, and extend their counts to an epoch.

    Args:
        feed: of the run.
        batches: its training micro-batches.

    Returns:
        The work of an epoch, and the rows of the largest micro-batch that was read: that with the most tokens including
        padding, and of those the one with the most positions of the output head.

    Raises:
        DataError: a row is invalid; it is named as `path:row`.
    """
    assert feed.train is not None, "training needs rows"
    counts, read, total = WorkCounts(), 0, batches.batches_per_epoch
    largest, most = list[TokenSequences](), (-1, -1)
    while read < total and counts.tokens < _MOST_TOKENS:
        stop = min(read + feed.accumulation_steps, total)
        for process in range(feed.processes):  # the micro-batches of a step and process are close in the files
            for number in range(read, stop):
                refs = batches.rows(0, number, process)
                rows = [feed.train.row(group, row) for group, row in refs.tolist()]
                found = feed.collate(rows).counts
                counts += found
                if (found.slots, found.head_positions) > most:
                    largest, most = rows, (found.slots, found.head_positions)
        read = stop
    share = read / total if total else 1.0
    work = EpochWork(
        tokens=counts.tokens / share,
        trained_tokens=counts.trained_tokens / share,
        slots=counts.slots / share,
        squared_lengths=counts.squared_lengths / share,
        head_positions=counts.head_positions / share,
        measured=share,
    )
    return work, largest
