"""Add up the losses of data sets in an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from sftkit.training.data.collation import CollatedBatch
from sftkit.training.data.rows.token_details import PartNames
from sftkit.training.loss.batch_loss import ComputedLoss
from sftkit.training.metrics.loss_parts import PartSums
from sftkit.training.metrics.loss_totals import LossTotals, totals_of_groups


def sum_losses(
    sets: Mapping[str, Iterable[CollatedBatch]],
    parts: Mapping[str, PartNames],
    loss_of: Callable[[CollatedBatch], tuple[CollatedBatch, ComputedLoss]],
    reduce: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
) -> dict[str, LossTotals]:
    """Add up the losses of the micro-batches of some data sets. Every process must call it.

    Args:
        sets: the micro-batches of each data set for this process.
        parts: the parts of the losses of those data sets that have any.
        loss_of: puts a micro-batch on the device, and computes the sum of its losses.
        reduce: adds up a tensor over all processes.
        device: where sums are reduced.
    """
    sums = []
    for name, batches in sets.items():
        total, weight, tokens = 0.0, 0.0, 0
        of_parts = PartSums(parts[name], device) if name in parts else None
        for batch in batches:
            prepared, loss = loss_of(batch)  # also without a trained token: other processes may wait for this one
            total += float(loss.total) if batch.counts.trained_tokens else 0.0
            weight += batch.loss_weight
            tokens += batch.counts.trained_tokens
            if of_parts is not None and prepared.details is not None and loss.of_tokens is not None:
                of_parts.add(loss.of_tokens, prepared.details, torch.ones((), device=device))
        sums += [total, weight, float(tokens), *([] if of_parts is None else of_parts.values.flatten().tolist())]
    reduced = reduce(torch.tensor(sums, dtype=torch.float64, device=device)).tolist()
    found = {}
    for name in sets:
        (total, weight, tokens), reduced = reduced[:3], reduced[3:]
        of_groups: dict[str, LossTotals] = {}
        if name in parts:
            size = len(parts[name])
            rows, reduced = [reduced[start : start + size] for start in range(0, 3 * size, size)], reduced[3 * size :]
            of_groups = totals_of_groups(parts[name].groups(), rows)
        found[name] = LossTotals(total, weight, round(tokens), of_groups)
    return found
