"""The loss of a micro-batch, from one run of the model: its own, in chunks, or from its logits."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from sftkit.core.rows import IGNORE_INDEX, LABELS
from sftkit.training.data.collation import SHIFT_LABELS, CollatedBatch
from sftkit.training.data.loss_details import LossDetails
from sftkit.training.loss.chunked_model import LABEL_SMOOTHING, LABEL_WEIGHTS, TOKEN_LOSSES
from sftkit.training.loss.router_loss import RouterLoss, router_arguments
from sftkit.training.models.cross_entropy import summed_cross_entropy, token_cross_entropy

_ITEMS = "num_items_in_batch"


@dataclass(frozen=True)
class ComputedLoss:
    """The loss of a micro-batch."""

    total: torch.Tensor
    """Sum of the cross entropies, each times its weight, over `items`."""

    outputs: Any
    """Of the model."""

    of_tokens: torch.Tensor | None
    """The cross entropy of each label, without its weight and gradients; None for a batch without details."""


@dataclass(frozen=True)
class BatchLoss:
    """Computes the loss of micro-batches.

    A batch without details is given to the model with its labels if the model sums its loss; else the loss is computed
    from its logits. With details, the cross entropy of each token is needed: it comes from the logits of the same run
    of the model, all of them at once or in chunks.
    """

    sums_loss: bool
    """Whether the model's own loss can be used, see `Capabilities`."""

    chunk_size: int | None = None
    """Positions of a chunk if the model computes its loss in chunks, and then with smoothing and weights, too."""

    def __call__(
        self,
        model: torch.nn.Module,
        base: Any,
        batch: CollatedBatch,
        items: torch.Tensor,
        smoothing: float = 0.0,
        router_loss: RouterLoss | None = None,
    ) -> ComputedLoss:
        """Run the model.

        Args:
            model: possibly with adapters, and wrapped for several processes.
            base: the same, not wrapped.
            batch: on the device of the model.
            items: the divisor, the weight of the global batch.
            smoothing: share of the target that is spread over the vocabulary (label smoothing).
            router_loss: the auxiliary loss, if the model is trained with one; it is not part of the result.
        """
        routers = router_arguments(base, router_loss is not None)
        details = batch.details
        if details is None:
            own = (self.sums_loss or self.chunk_size is not None) and (not smoothing or self.chunk_size is not None)
            given: dict[str, Any] = {LABEL_SMOOTHING: smoothing} if smoothing else {}
        else:
            own = self.chunk_size is not None and details.weights.numel() > self.chunk_size
            given = {LABEL_SMOOTHING: smoothing, LABEL_WEIGHTS: details.weights}
        if own:
            with nullcontext() if router_loss is None else router_loss.without_own_loss():
                outputs = model(**batch, **given, **routers, **{_ITEMS: items})
            return ComputedLoss(_output(outputs, "loss"), outputs, None if details is None else outputs[TOKEN_LOSSES])
        outputs = model(
            **{name: value for name, value in batch.items() if name not in (LABELS, SHIFT_LABELS)}, **routers
        )
        logits, labels = _output(outputs, "logits"), _next_labels(batch)
        if details is None:
            return ComputedLoss(summed_cross_entropy(logits, labels, items, smoothing), outputs, None)
        return _weighted(logits, labels, details, items, smoothing, outputs)


def _weighted(
    logits: torch.Tensor,
    labels: torch.Tensor,
    details: LossDetails,
    items: torch.Tensor,
    smoothing: float,
    outputs: Any,
) -> ComputedLoss:
    losses = token_cross_entropy(logits, labels, smoothing)
    total = (losses * details.weights.to(losses.device)).sum() / items.to(losses.device)
    return ComputedLoss(total, outputs, losses.detach())


def _next_labels(batch: CollatedBatch) -> torch.Tensor:
    """The label that each position of the logits should predict."""
    labels: torch.Tensor | None = batch.get(SHIFT_LABELS)
    return functional.pad(batch[LABELS], (0, 1), value=IGNORE_INDEX)[..., 1:] if labels is None else labels


def _output(outputs: Any, name: str) -> torch.Tensor:
    """The loss of a model that was given labels, or the logits of one that was not."""
    found: torch.Tensor = outputs[name] if isinstance(outputs, dict) else outputs[0]
    return found
