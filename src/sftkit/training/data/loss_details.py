"""What a micro-batch knows of the labels that it predicts: the part of the loss that each is in, and its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sftkit.core.rows import Mask
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.data.rows.token_details import TokenDetails, concatenate_details


@dataclass(frozen=True)
class LossDetails:
    """Tensors of one shape, (rows, positions): that of the labels which the loss is computed from."""

    parts: torch.Tensor
    """Number of the part of the loss, int64; any number where no loss is."""

    weights: torch.Tensor
    """Weight in the loss, float32; 0 where no loss is, and 1 for other labels if the data have no weights."""

    trained: torch.Tensor
    """Whether there is a loss, bool."""

    total_weight: float
    """Sum of the weights."""

    def to(self, device: torch.device | str) -> LossDetails:
        """Copy the tensors to a device."""
        parts, weights, trained = (each.to(device) for each in (self.parts, self.weights, self.trained))
        return LossDetails(parts, weights, trained, self.total_weight)


def details_of(sequences: Sequence[TokenSequences]) -> TokenDetails:
    """The details of the tokens of all sequences in order."""
    return concatenate_details([each.details for each in sequences if len(each.input_ids)])


def loss_details(
    details: TokenDetails, places: Mask, trained: Mask, positions: npt.NDArray[np.int64] | slice
) -> LossDetails | None:
    """Arrange the details of tokens like the labels that a batch predicts.

    Args:
        details: of the tokens of the batch in order.
        places: which places of the batch hold a token, shape (rows, width).
        trained: which positions predict a trained token, shape (rows, width).
        positions: the columns that the loss is computed from.

    Returns:
        None if nothing is known of the tokens.

    Example:
        >>> details = TokenDetails(parts=np.array([1, 1, 2], np.int32), weights=np.array([0, 1, 0.5], np.float32))
        >>> all_places, trained = np.array([[True, True, True, False]]), np.array([[True, True, False, False]])
        >>> found = loss_details(details, all_places, trained, np.array([0, 1]))
        >>> found.parts.tolist(), found.weights.tolist(), found.total_weight
        ([[1, 2]], [[1.0, 0.5]], 1.5)
    """
    if details.parts is None and details.weights is None:
        return None
    parts = np.zeros(places.shape, np.int64)
    weights = trained.astype(np.float32)
    if details.parts is not None:
        parts[places] = details.parts
        parts[:, :-1] = parts[:, 1:]
    if details.weights is not None:
        given = np.zeros(places.shape, np.float32)
        given[places] = details.weights
        weights[:, :-1] *= given[:, 1:]
    return LossDetails(
        parts=_columns(parts, positions),
        weights=_columns(weights, positions),
        trained=_columns(trained, positions),
        total_weight=float(weights.sum(dtype=np.float64)),
    )


def _columns(values: npt.NDArray[Any], positions: npt.NDArray[np.int64] | slice) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values[:, positions]))
