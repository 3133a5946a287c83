"""The floating-point operations that training a causal language model needs, from its sizes and what is frozen.

The count is that of Kaplan et al. 2020 (https://arxiv.org/abs/2001.08361) and of PaLM, appendix B
(https://arxiv.org/abs/2204.02311): 6 operations a weight and token, and 12 a layer, unit of width (heads x head size)
and pair of tokens in attention, halved where attention is causal. Models are looked at as torch modules with a
`config`; nothing here knows transformers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sftkit.training.models.freezing import element_count

_PASS = 2
"""A multiplication and an addition: of a weight and a token in each pass, forward, gradient of the input, of itself."""

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_EXPERTS = ".experts."
_NO_PRODUCT = "trainable_tokens_delta"  # rows of an embedding, held by peft


@dataclass(frozen=True)
class TrainingCost:
    """Operations of one forward and backward pass.

    token: of all weights but embeddings and head, a token. head: of the output head, a position it is run on.
    square: of attention, a token times a token of the same sequence (the causal half is already taken).
    """

    per_token: float
    per_head_position: float
    per_length_squared: float

    def flops(self, tokens: int, head_positions: int, squared_lengths: int) -> float:
        """Operations of some work. Padding is none, nor is what gradient checkpointing computes a second time."""
        return (
            self.per_token * tokens
            + self.per_head_position * head_positions
            + self.per_length_squared * squared_lengths
        )


def training_cost(model: torch.nn.Module) -> TrainingCost | None:
    """What a token, a position of the head and a pair of tokens cost in training. What is not needed is not counted:

    - a frozen weight, as under LoRA, has no gradient of its own (4 operations instead of 6), and where nothing before
      it is trained, its input has none either (2); attention is counted likewise;
    - of the experts of a mixture, those that a token is sent to;
    - attention of layers that `layer_types` does not call full (sliding windows, linear attention) is left out, so
      that the result is a lower bound for such models.

    Args:
        model: with its adapters, and with everything frozen that is to be; not yet spread over processes.

    Returns:
        None where the sizes of attention or the output head cannot be found.
    """
    config: Any = getattr(model, "config", None)
    config = getattr(config, "text_config", None) or config
    width = _attention_width(config)
    find_head: Any = getattr(model, "get_output_embeddings", None)
    head = find_head() if find_head else None
    if width is None or head is None:
        return None
    in_head = {id(values) for values in head.parameters()}
    in_embeddings = {
        id(values)
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        for values in module.parameters()
    }
    share = _active_experts(config)
    needed, first_trained, layer = 0.0, None, -1
    for name, values in model.named_parameters():  # in the order in which a token meets them
        number = _LAYER.search(name)
        layer = int(number[1]) if number else layer
        product = not (id(values) in in_head | in_embeddings or _NO_PRODUCT in name)
        if product:
            passes = 1 + (first_trained is not None) + values.requires_grad
            needed += _PASS * passes * element_count(values) * (share if _EXPERTS in name else 1)
        if values.requires_grad and first_trained is None and (product or id(values) in in_embeddings):
            first_trained = layer
    return TrainingCost(
        per_token=needed,
        per_head_position=_PASS * element_count(head.weight) * (1 + (first_trained is not None) + _is_trained(head)),
        per_length_squared=sum(_square(width, first_trained, layer) for layer in _full_layers(config)),
    )


def _square(width: float, first_trained: int | None, layer: int) -> float:
    """Operations of one layer's attention, a token and a token: scores and sums, forward, and twice that backward."""
    passes = 3 if first_trained is not None and layer >= first_trained else 1
    return passes * 2 * _PASS * width / 2


def _attention_width(config: Any) -> float | None:
    """Heads times their size; the mean of both sizes where those of keys and values differ (latent attention)."""
    heads, hidden = getattr(config, "num_attention_heads", None), getattr(config, "hidden_size", None)
    if not isinstance(heads, int) or not isinstance(hidden, int):
        return None
    size = getattr(config, "head_dim", None) or hidden // heads
    keys, values = getattr(config, "qk_head_dim", None) or size, getattr(config, "v_head_dim", None) or size
    return float(heads * (keys + values) / 2)


def _full_layers(config: Any) -> list[int]:
    layers: Sequence[str] = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return [number for number, kind in enumerate(layers) if kind == "full_attention"]


def _active_experts(config: Any) -> float:
    chosen = getattr(config, "num_experts_per_tok", None)
    there = next(
        (count for key in ("num_local_experts", "num_experts", "n_routed_experts")
         if (count := getattr(config, key, None))), None)  # fmt: skip
    return chosen / there if chosen and there else 1.0


def _is_trained(head: Any) -> bool:
    return any(values.requires_grad and values.shape == head.weight.shape for values in head.parameters())
