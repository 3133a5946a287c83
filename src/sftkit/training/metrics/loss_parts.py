"""Add up the losses of each source and of each kind of tokens on the device, from the losses of single tokens.

The loss of a step is the sum over its tokens of w_i * ce_i / W, where W is the sum of all weights w_i. The tokens of a
part p contribute A_p = sum w_i * ce_i / W, and have the share B_p = sum w_i / W of the weights. The loss of the part is
A_p / B_p. Both are added up over the steps between two log events, as the loss is. So the logged losses of the parts,
each times its share, add up to the logged loss, however many steps are between two events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sftkit.training.data.loss_details import LossDetails
from sftkit.training.data.rows.token_details import PartNames
from sftkit.training.metrics.loss_totals import LossTotals, totals_of_groups

_MEASURES = 3  # of each part: A_p, B_p, and how many trained tokens it has


class PartSums:
    """The sums of the parts of the losses of a process, on its device."""

    def __init__(self, names: PartNames, device: torch.device) -> None:
        """Begin with zeros.

        Args:
            names: of the parts.
            device: where the sums are.
        """
        self.names = names
        dtype = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self.values = torch.zeros(_MEASURES, len(names), dtype=dtype, device=device)
        self._counted = torch.zeros_like(self.values[-1])  # trained tokens that were cleared

    def add(self, losses: torch.Tensor, details: LossDetails, items: torch.Tensor) -> None:
        """Add a micro-batch; nothing waits for the device.

        Args:
            losses: the cross entropy of each label, shape (rows, positions).
            details: of these labels.
            items: W, the weight of the global batch.
        """
        device, dtype = self.values.device, self.values.dtype
        weights = details.weights.to(device, dtype) / items.to(device, dtype)
        added = torch.stack([losses.to(device, dtype) * weights, weights, details.trained.to(device, dtype)])
        self.values.index_add_(1, details.parts.to(device).flatten(), added.flatten(1))

    def clear(self) -> None:
        """Begin with zeros again."""
        self._counted += self.values[-1]
        self.values.zero_()

    def restore(self, values: Sequence[Sequence[float]]) -> None:
        """Begin with such sums of an earlier run, shape (3, parts)."""
        self.values.copy_(torch.tensor(values, dtype=torch.float64))
        self._counted -= self.values[-1]

    def trained_tokens(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, int]:
        """Trained tokens of each source and kind so far, without those of an earlier run; waits for the device.

        Args:
            reduce: adds up a tensor over all processes.
        """
        counts = reduce(self._counted + self.values[-1]).tolist()
        return {name: round(sum(counts[number] for number in numbers)) for name, numbers in self.names.groups().items()}

    def totals(self, values: torch.Tensor) -> LossTotals:
        """What such sums, of all processes, say; waits for the device.

        Args:
            values: shape (3, parts).
        """
        loss, weight, tokens = values.sum(1).tolist()
        return LossTotals(loss, weight, round(tokens), totals_of_groups(self.names.groups(), values.tolist()))
