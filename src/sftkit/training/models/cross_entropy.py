"""The loss for models whose own loss cannot be used."""

from __future__ import annotations

import torch
from torch.nn import functional

from sftkit.core.rows import IGNORE_INDEX


def summed_cross_entropy(
    logits: torch.Tensor, next_labels: torch.Tensor, items: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Sum of the cross entropies of all trained tokens, divided by `items`, in float32.

    Args:
        logits: shape (rows, positions, vocabulary).
        next_labels: the label that each position should predict, -100 for no loss, shape (rows, positions).
        items: the divisor: trained tokens of the global batch.
        smoothing: share of the target that is spread over the vocabulary (label smoothing).
    """
    summed = functional.cross_entropy(
        logits.float().flatten(0, 1),
        next_labels.flatten().to(logits.device),
        ignore_index=IGNORE_INDEX,
        reduction="sum",
        label_smoothing=smoothing,
    )
    return summed / items.to(summed.device)
