"""The bytes of weights as a process keeps them: quantized, in mixed precision, or as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sftkit.config.commands import TrainConfig

_BITS = {"load_in_4bit": 4, "load_in_8bit": 8}
_BLOCK, _BLOCKS = 64, 256
_SCALES = 1 / _BLOCK + 4 / (_BLOCK * _BLOCKS)
"""Bytes per weight: one of 8 bits for each block, and one of 32 bits for so many of them (NF4, double quantization)."""


def weight_bytes(model: Any, config: TrainConfig, stored: torch.dtype | None, trained: torch.dtype | None) -> int:
    """Bytes of all weights of a model on one device, if they are not sharded.

    Args:
        model: with adapters and frozen parameters.
        config: the run, which may quantize the weights that are not trained.
        stored: data type of floating-point weights; None for their own.
        trained: data type of those that are trained; None for the same as the others.
    """
    bits = quantized_bits(config, model)
    quantized = quantized_weights(model) if bits is not None else {}
    total = float(sum(each.numel() * each.element_size() for each in model.buffers()))
    for values in {id(each): each for each in model.parameters()}.values():
        if bits is not None and id(values) in quantized:
            total += quantized_size(values, bits)
            continue
        dtype = (trained if values.requires_grad else None) or stored
        size = dtype.itemsize if dtype is not None and values.is_floating_point() else values.element_size()
        total += values.numel() * size
    return round(total)


def quantized_bits(config: TrainConfig, model: Any) -> int | None:
    """Bits of a weight of the frozen linear layers; None if they are not quantized."""
    if config.load_in_4bit:
        return _BITS["load_in_4bit"]
    for settings in (config.quantization_config, _as_mapping(getattr(model.config, "quantization_config", None))):
        if settings and not settings.get("dequantize"):
            named = next((bits for key, bits in _BITS.items() if settings.get(key)), settings.get("bits"))
            return None if named is None else int(named)
    return None


def quantized_weights(model: Any) -> dict[int, torch.Tensor]:
    """The weights that quantization replaces, by `id`: those of frozen linear layers except the output head."""
    head = model.get_output_embeddings()
    found = (module.weight for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head)
    return {id(weight): weight for weight in found if not weight.requires_grad}


def quantized_size(values: torch.Tensor, bits: int) -> float:
    """Bytes of a weight with its scales; those of other methods than NF4 are about as large.

    Example:
        >>> round(quantized_size(torch.empty(4096, 4096), 4) / 4096**2, 3)
        0.516
    """
    return values.numel() * (bits / 8 + _SCALES)


def _as_mapping(settings: Any) -> Mapping[str, Any] | None:
    if settings is None or isinstance(settings, Mapping):
        return settings
    found: Mapping[str, Any] = settings.to_dict()
    return found
