"""Micro-batches as torch's DataLoader gives them to the Trainer: each process its own, from any position at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader, Dataset, Sampler

from sftkit.training.data.batching import Batcher
from sftkit.training.data.collation import CollatedBatch, Collator
from sftkit.training.data.row_groups import TokenSequences
from sftkit.training.data.split_rows import SplitRows

MicroBatchIndex = tuple[int, int]
"""(epoch, number of the micro-batch within it)."""


class MicroBatchDataset(Dataset[list[TokenSequences]]):
    """The micro-batches of one process: those of place (epoch, number), as the sequences of their rows."""

    def __init__(self, rows: SplitRows, batches: Batcher, process: int) -> None:
        self._rows = rows
        self._batches = batches
        self._process = process

    def __len__(self) -> int:
        """Rows of the split, which is what the Trainer reports as examples."""
        return len(self._rows)

    def __getitem__(self, place: MicroBatchIndex) -> list[TokenSequences]:
        refs = self._batches.rows(*place, self._process)
        return [self._rows.row(group, row) for group, row in refs.tolist()]


class MicroBatchSampler(Sampler[list[MicroBatchIndex]]):
    """The places of one epoch. To pass over some costs nothing: what they stand for is not read."""

    def __init__(self, batches_per_epoch: int) -> None:
        self._batches_per_epoch = batches_per_epoch
        self.epoch = 0

    def __len__(self) -> int:
        return self._batches_per_epoch

    def __iter__(self) -> Iterator[list[MicroBatchIndex]]:
        return ([(self.epoch, number)] for number in range(self._batches_per_epoch))

    def set_epoch(self, epoch: int) -> None:
        """The epoch that iterating next goes through; the Trainer calls it."""
        self.epoch = epoch


class MicroBatchLoader(DataLoader[list[TokenSequences]]):
    """A DataLoader that the Trainer can tell the epoch.

    It is not handed to accelerate, which would deal out its batches to the processes once more.
    """

    def set_epoch(self, epoch: int) -> None:
        """Go through this epoch next."""
        if isinstance(self.batch_sampler, MicroBatchSampler):
            self.batch_sampler.set_epoch(epoch)


def make_loader(
    rows: SplitRows, batches: Batcher, process: int, collate: Collator, *, workers: int, prefetch: int | None
) -> MicroBatchLoader:
    """The micro-batches of one process, collated.

    Args:
        rows: of the split.
        batches: how they are batched.
        process: which of the processes this is.
        collate: makes a micro-batch.
        workers: processes of this process that read ahead; 0 for none.
        prefetch: micro-batches that each of them is ahead; None for torch's default.
    """
    return MicroBatchLoader(
        MicroBatchDataset(rows, batches, process),
        batch_sampler=MicroBatchSampler(batches.batches_per_epoch),
        collate_fn=_Collate(collate),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
    )


class _Collate:
    """DataLoader gives a list of one micro-batch."""

    def __init__(self, collate: Collator) -> None:
        self._collate = collate

    def __call__(self, batches: Sequence[list[TokenSequences]]) -> CollatedBatch:
        [sequences] = batches
        return self._collate(sequences)
