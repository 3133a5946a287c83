"""Add up the losses of data sets in an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from sftkit.training.data.collation import CollatedBatch


def sum_losses(
    sets: Iterable[Iterable[CollatedBatch]], loss_of: Callable[[CollatedBatch], torch.Tensor]
) -> torch.Tensor:
    """Add up the losses of the micro-batches of some data sets.

    Args:
        sets: the micro-batches of each data set for this process.
        loss_of: the sum of the losses of the trained tokens of a micro-batch.

    Returns:
        Sum of losses and number of trained tokens for each data set: shape (sets, 2), float64, on the CPU.
    """
    sums = []
    for batches in sets:
        total, tokens = 0.0, 0
        for batch in batches:
            loss = loss_of(batch)  # also without a trained token: other processes may wait for this one
            total += float(loss) if batch.counts.trained_tokens else 0.0
            tokens += batch.counts.trained_tokens
        sums.append([total, tokens])
    return torch.tensor(sums, dtype=torch.float64).view(-1, 2)
