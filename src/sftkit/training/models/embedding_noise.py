"""Noise on the embeddings in training (NEFTune, https://arxiv.org/abs/2310.05914)."""

from __future__ import annotations

from typing import Any

import torch

from sftkit.core.rows import ATTENTION_MASK
from sftkit.training.data.collation import CollatedBatch

_POSITIONS = "position_ids"


class EmbeddingNoise:
    """Adds uniform noise between -a/sqrt(L*d) and a/sqrt(L*d) to the embeddings of a sequence.

    Here a is `neftune_noise_alpha`, L the number of tokens of the sequence, without padding, and d the size of an
    embedding. The hook of transformers takes the width of the batch as L, which is the sum of all lengths in a flat
    batch.
    """

    def __init__(self, alpha: float, model: Any) -> None:
        """Register the noise with a model.

        Args:
            alpha: the scale of the noise.
            model: a model of transformers, possibly with adapters, before it is wrapped.
        """
        self._alpha = alpha
        self._lengths: torch.Tensor | None = None
        model.get_input_embeddings().register_forward_hook(self._add)

    def prepare(self, batch: CollatedBatch) -> None:
        """Take the lengths of the sequences of the micro-batch that the model gets next."""
        self._lengths = lengths_by_token(batch)

    def _add(self, module: torch.nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training or self._lengths is None:
            return output
        lengths = self._lengths.to(output.device, non_blocking=True)
        scale = self._alpha / torch.sqrt(lengths * output.shape[-1])
        return output + torch.zeros_like(output).uniform_(-1, 1) * scale[..., None].to(output.dtype)


def lengths_by_token(batch: CollatedBatch) -> torch.Tensor:
    """For each token, the length of its sequence: shape (rows, width), float32; at least 1 for padding.

    Example:
        >>> flat = CollatedBatch({"input_ids": torch.zeros(1, 3), "position_ids": torch.tensor([[0, 0, 1]])})
        >>> lengths_by_token(flat)
        tensor([[1., 2., 2.]])
    """
    if _POSITIONS in batch:
        sequence = (batch[_POSITIONS][0] == 0).cumsum(0) - 1
        lengths = torch.bincount(sequence)[sequence][None]
    else:
        lengths = batch[ATTENTION_MASK].sum(1, keepdim=True).expand_as(batch[ATTENTION_MASK])
    return lengths.clamp(min=1).float()
