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


def token_cross_entropy(logits: torch.Tensor, next_labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Cross entropy of each token, in float32, and 0 where there is no loss; shape (rows, positions).

    Args:
        logits: as for `summed_cross_entropy`.
        next_labels: as for `summed_cross_entropy`.
        smoothing: as for `summed_cross_entropy`.
    """
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1),
        next_labels.flatten().to(logits.device),
        ignore_index=IGNORE_INDEX,
        reduction="none",
        label_smoothing=smoothing,
    )
    return losses.view(next_labels.shape)
