"""Read sizes of layers from the config of a model, whatever its names are and whether layers differ.

A value can be one number for all layers, a list with one for each, or raise where transformers keeps settings by layer
(`per_layer_config`, as in Gemma 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_HEADS = ("num_attention_heads", "num_query_heads", "n_heads", "n_head")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "model_dim")
_HEAD_SIZE = ("head_dim", "attention_head_dim", "kv_channels")
_KINDS = ("layer_types", "layers_block_type", "block_types")
_ATTENDING = ("full_attention", "attention", "hybrid")

_EXPERTS = (
    *("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts"),
    "num_routed_experts",
)
_CHOSEN_EXPERTS = (
    *("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k"),
    *("num_selected_experts", "experts_per_token", "num_active_experts", "moe_num_active_experts"),
)
_PARTS = ("ffn_config", "moe_config")  # of a config, with the settings of experts (DBRX)


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of one layer; None for one that the config does not have."""

    attention_width: float | None
    """Heads times head size, with different sizes of keys and values the mean of both; 0 if it does not attend to all
    earlier tokens."""

    experts: int | None
    chosen_experts: int | None
    """To how many experts a token is sent."""


def layer_sizes(config: Any) -> list[LayerSizes]:
    """The sizes of each layer of a causal language model; empty if the number of layers is unknown."""
    text = _text_config(config)
    count = _number(_value(text, "num_hidden_layers"))
    return [_sizes(text, layer) for layer in range(count or 0)]


def _text_config(config: Any) -> Any:
    """The config of the language model of a multimodal one."""
    find: Any = getattr(config, "get_text_config", None)
    try:
        return find(decoder=True) if callable(find) else getattr(config, "text_config", None) or config
    except (ValueError, TypeError):  # there are several, or the method of a foreign config takes nothing
        return config


def _sizes(config: Any, layer: int) -> LayerSizes:
    own = _of_layer(config, layer)
    parts = (own, *(part for name in _PARTS if (part := _value(own, name)) is not None))
    return LayerSizes(
        attention_width=_attention_width(own, layer) if _attends(own, layer) else 0.0,
        experts=_first(parts, _EXPERTS, layer),
        chosen_experts=_first(parts, _CHOSEN_EXPERTS, layer),
    )


def _attention_width(config: Any, layer: int) -> float | None:
    heads = _first((config,), _HEADS, layer)
    size = _first((config,), _HEAD_SIZE, layer)
    if heads is None:
        return None
    if size is None:
        hidden = _first((config,), _HIDDEN, layer)
        if hidden is None or not heads:
            return None
        size = hidden // heads
    keys = _first((config,), ("qk_head_dim",), layer) or size
    values = _first((config,), ("v_head_dim",), layer) or size
    return float(heads * (keys + values) / 2)


def _attends(config: Any, layer: int) -> bool:
    """Whether a layer attends to all earlier tokens; so does every layer of a model whose config says nothing."""
    if "attention" in (_value(config, "skip") or ()):
        return False
    for name in _KINDS:
        kinds = _value(config, name)
        if isinstance(kinds, Sequence) and kinds and not isinstance(kinds, str):
            return kinds[layer % len(kinds)] in _ATTENDING  # RecurrentGemma repeats a pattern
    return True


def _of_layer(config: Any, layer: int) -> Any:
    """The config of a layer, where transformers keeps them apart."""
    layers = _value(config, "per_layer_config")
    try:
        return config if layers is None else layers[layer]
    except (LookupError, TypeError):
        return config


def _first(configs: Sequence[Any], names: Sequence[str], layer: int) -> int | None:
    """The first of some values that is a number, or a list with one for the layer."""
    for config in configs:
        for name in names:
            value = _value(config, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = value[layer] if layer < len(value) else None
            if (number := _number(value)) is not None:
                return number
    return None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _value(config: Any, name: str) -> Any:
    try:
        return config.get(name) if isinstance(config, dict) else getattr(config, name, None)
    except Exception:  # properties of a config can raise anything, and so do values that differ by layer
        return None
