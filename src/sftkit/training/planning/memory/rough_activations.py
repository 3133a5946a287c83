"""Activations by formula, for a model that cannot be run without values."""

from __future__ import annotations

from typing import Any

from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.planning.memory.byte_timeline import LiveBytes

_WIDTHS = 10
"""Tensors of the width of the model that a layer keeps: inputs of two norms and their results, queries, keys, values,
the output of attention before and after its projection, and sums (Korthikanti et al. 2022, section 4,
https://arxiv.org/abs/2205.05198, without scores and dropout)."""

_INNER_WIDTHS = 4
"""Tensors of the width of the feed-forward part: of a gated one, gate, its activation, values and their product."""

_LOGITS = 3
"""Tensors in float32 of the size of the logits: themselves, their probabilities, and their gradients."""


def rough_activations(
    settings: Any, counts: WorkCounts, size: int, *, checkpointing: bool, chunk: int | None, eager_pairs: int = 0
) -> LiveBytes:
    """What exists beside weights, gradients and optimizer states at the begin of the backward pass.

    Args:
        settings: the config of a language model.
        counts: work of the micro-batch.
        size: bytes of a number that is computed with.
        checkpointing: whether only the input of each layer is kept, and one layer at a time in full.
        chunk: positions whose logits exist at a time; None for all.
        eager_pairs: pairs of tokens whose scores are stored, for each head.
    """
    width = int(getattr(settings, "hidden_size", 0) or 0)
    inner = int(getattr(settings, "moe_intermediate_size", 0) or getattr(settings, "intermediate_size", 0) or 4 * width)
    inner *= int(getattr(settings, "num_experts_per_tok", 1) or 1)
    layers = int(getattr(settings, "num_hidden_layers", 0) or 0)
    heads = int(getattr(settings, "num_attention_heads", 0) or 0)
    layer = counts.slots * (_WIDTHS * width + _INNER_WIDTHS * inner) * size + 2 * eager_pairs * heads * size
    kept = layers * counts.slots * width * size + layer if checkpointing else layers * layer
    positions = counts.head_positions if chunk is None else min(chunk, counts.head_positions)
    return LiveBytes(logits=_LOGITS * 4 * positions * int(getattr(settings, "vocab_size", 0) or 0), others=kept)
