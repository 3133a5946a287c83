"""The DataLoader that gives the Trainer the micro-batches of one process, from any position of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader, Dataset, Sampler

from sftkit.training.data.batching import Batcher
from sftkit.training.data.collation import CollatedBatch, Collator
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.data.rows.split_rows import SplitRows

MicroBatchIndex = tuple[int, int]
"""(epoch, number of the micro-batch within it)."""


class MicroBatchDataset(Dataset[list[TokenSequences]]):
    """The micro-batches of one process, each as the sequences of its rows."""

    def __init__(self, rows: SplitRows, batches: Batcher, process: int) -> None:
        self._rows = rows
        self._batches = batches
        self._process = process

    def __len__(self) -> int:
        """Rows of the split, which the Trainer reports as the number of examples."""
        return len(self._rows)

    def __getitem__(self, index: MicroBatchIndex) -> list[TokenSequences]:
        refs = self._batches.rows(*index, self._process)
        return [self._rows.row(group, row) for group, row in refs.tolist()]


class MicroBatchSampler(Sampler[list[MicroBatchIndex]]):
    """The indices of one epoch. Skipping some, as a resumed run does, is free: their rows are not read."""

    def __init__(self, batches_per_epoch: int) -> None:
        self._batches_per_epoch = batches_per_epoch
        self.epoch = 0

    def __len__(self) -> int:
        return self._batches_per_epoch

    def __iter__(self) -> Iterator[list[MicroBatchIndex]]:
        return ([(self.epoch, number)] for number in range(self._batches_per_epoch))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; called by the Trainer."""
        self.epoch = epoch


class MicroBatchLoader(DataLoader[list[TokenSequences]]):
    """A DataLoader whose epoch the Trainer can set.

    It is not passed to accelerate, which would distribute its batches over the processes a second time.
    """

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        if isinstance(self.batch_sampler, MicroBatchSampler):
            self.batch_sampler.set_epoch(epoch)


def make_loader(
    rows: SplitRows, batches: Batcher, process: int, collate: Collator, *, workers: int, prefetch: int | None
) -> MicroBatchLoader:
    """The collated micro-batches of one process.

    Args:
        rows: of the split.
        batches: which rows each micro-batch has.
        process: index of this process.
        collate: makes a micro-batch.
        workers: how many worker processes of this process read ahead; 0 for none.
        prefetch: micro-batches that each worker is ahead; None for torch's default.
    """
    return MicroBatchLoader(
        MicroBatchDataset(rows, batches, process),
        batch_sampler=MicroBatchSampler(batches.batches_per_epoch),
        collate_fn=_CollateOne(collate),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
    )


class _CollateOne:
    """Unpacks the list of one micro-batch that DataLoader passes to `collate_fn`."""

    def __init__(self, collate: Collator) -> None:
        self._collate = collate

    def __call__(self, batches: Sequence[list[TokenSequences]]) -> CollatedBatch:
        [sequences] = batches
        return self._collate(sequences)
