"""Count the floating-point operations of training a causal language model, from its sizes and its frozen weights.

The formula is that of Kaplan et al. 2020 (https://arxiv.org/abs/2001.08361) and PaLM, appendix B
(https://arxiv.org/abs/2204.02311): 6 operations per weight and token; and in attention, 12 per layer, unit of width
(heads x head size) and pair of tokens, half of that if attention is causal. Any torch module with a `config` will do;
this module does not import transformers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sftkit.training.metrics.layer_sizes import LayerSizes, layer_sizes
from sftkit.training.models.freezing import element_count

_MULTIPLY_ADD = 2
"""Operations per weight and token in each pass: forward, gradient of the input, gradient of the weight."""

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_EXPERT = re.compile(r"(?:^|\.)experts\.(?!router\b)")
_NOT_MULTIPLIED = "trainable_tokens_delta"  # rows of an embedding that peft holds


@dataclass(frozen=True)
class TrainingCost:
    """Operations of one forward and backward pass.

    Example:
        >>> TrainingCost(per_token=6, per_head_position=2, per_length_squared=1).flops(10, 5, 100)
        170
    """

    per_token: float
    """Of all weights except embeddings and output head, per token."""

    per_head_position: float
    """Of the output head, per position at which it runs."""

    per_length_squared: float
    """Of causal attention, per squared token of a sequence (the pairs that causality excludes are not counted)."""

    def flops(self, tokens: float, head_positions: float, squared_lengths: float) -> float:
        """Operations of some work, without padding and without what gradient checkpointing computes twice."""
        return (
            self.per_token * tokens
            + self.per_head_position * head_positions
            + self.per_length_squared * squared_lengths
        )


def training_cost(model: torch.nn.Module, unused: Collection[int] = ()) -> TrainingCost | None:
    """What training costs per token, per position of the output head, and per pair of tokens.

    Only necessary operations are counted:

    - A frozen weight, as under LoRA, needs no gradient for itself (4 operations instead of 6). If no weight before it
      is trained either, its input needs no gradient (2 operations). Attention is counted in the same way.
    - Of a mixture of experts, only the experts that a token is sent to.
    - Attention of layers that do not attend to everything (sliding windows, linear attention) is left out, so that the
      result is a lower bound for such models.

    Args:
        model: with adapters added and weights frozen, before it is sharded over processes.
        unused: `id` of parameters that take no part, such as those of the vision tower of a model trained on text.

    Returns:
        None if the output head, the sizes of attention, or how many experts a token is sent to cannot be found.
    """
    layers = layer_sizes(getattr(model, "config", None))
    widths = [sizes.attention_width for sizes in layers]
    find_head: Any = getattr(model, "get_output_embeddings", None)
    head = find_head() if find_head else None
    if not widths or None in widths or head is None:
        return None
    head_ids = {id(values) for values in head.parameters()}
    embedding_ids = {
        id(values)
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        for values in module.parameters()
    }
    per_token, first_trained, layer = 0.0, None, -1
    for name, values in model.named_parameters():  # in the order in which they are applied to a token
        if id(values) in unused:
            continue
        number = _LAYER.search(name)
        layer = int(number[1]) if number else layer
        multiplied = not (id(values) in head_ids | embedding_ids or _NOT_MULTIPLIED in name)
        if multiplied:
            passes = 1 + (first_trained is not None) + values.requires_grad
            share = _active_share(name, values, layers[layer] if 0 <= layer < len(layers) else None)
            if share is None:
                return None
            per_token += _MULTIPLY_ADD * passes * element_count(values) * share
        if values.requires_grad and first_trained is None and (multiplied or id(values) in embedding_ids):
            first_trained = layer
    return TrainingCost(
        per_token=per_token,
        per_head_position=_MULTIPLY_ADD
        * element_count(head.weight)
        * (1 + (first_trained is not None) + _is_trained(head)),
        per_length_squared=sum(_square(width or 0, first_trained, layer) for layer, width in enumerate(widths)),
    )


def _square(width: float, first_trained: int | None, layer: int) -> float:
    """Operations of causal attention of one layer per pair of tokens: scores and sums, and twice that backward."""
    passes = 3 if first_trained is not None and layer >= first_trained else 1
    return passes * 2 * _MULTIPLY_ADD * width / 2


def _active_share(name: str, values: torch.Tensor, sizes: LayerSizes | None) -> float | None:
    """The share of a weight that a token is multiplied with: of stacked experts, those that it is sent to.

    Returns:
        1 for what every token passes, as shared experts; None if it is unknown.
    """
    shape: Sequence[int] = getattr(values, "ds_shape", values.shape)  # DeepSpeed ZeRO-3 leaves an empty tensor
    stacked = len(shape) == 3
    experts = sizes.experts if sizes is not None else None
    if not (_EXPERT.search(name) or (stacked and experts is not None and experts > 1 and shape[0] == experts)):
        return 1.0
    total = int(shape[0]) if stacked else experts
    chosen = sizes.chosen_experts if sizes is not None else None
    if not total or chosen is None:
        return None
    return min(1.0, chosen / total)


def _is_trained(head: Any) -> bool:
    return any(values.requires_grad and values.shape == head.weight.shape for values in head.parameters())
