"""Find settings about loading a model that cannot be used, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sftkit.config.commands import TrainConfig
from sftkit.training.loading.rope_scaling_checks import rope_scaling_problems

_BITSANDBYTES = "bitsandbytes"

_OWN_KEYS = {
    "dtype": "torch_dtype",
    "torch_dtype": "torch_dtype",
    "attn_implementation": "attn_implementation",
    "trust_remote_code": "trust_remote_code",
    "quantization_config": "quantization_config",
    "load_in_4bit": "load_in_4bit",
    "load_in_8bit": "quantization_config={load_in_8bit: true}",
    "rope_scaling": "rope_scaling",
    "rope_parameters": "rope_scaling",
    "pretrained_model_name_or_path": "model_name_or_path",
    "revision": "model_name_or_path=NAME@REVISION",
    "token": "hub_token",
}
"""Arguments of `from_pretrained` that have a key of their own."""

_FIXED = frozenset({"config", "state_dict", "output_loading_info", "device_map", "max_memory", "tp_plan", "gguf_file"})
"""Arguments of `from_pretrained` that a run decides itself."""


def loading_problems(config: TrainConfig) -> Iterator[str]:
    """Yield a sentence for each setting about loading that cannot be used; nothing is loaded."""
    adapters = config.use_peft or config.load_in_4bit
    for key in config.model_kwargs:
        if key in _OWN_KEYS:
            yield f"model_kwargs: {key} has a key of its own; set {_OWN_KEYS[key]} instead"
        elif key in _FIXED:
            yield f"model_kwargs: {key} is decided by the run; remove it"
    quantization = config.quantization_config
    if quantization and config.load_in_4bit:
        yield (
            "quantization_config and load_in_4bit both say how the model is quantized; remove load_in_4bit, and set"
            " use_peft=true"
        )
    if quantization and config.init_from_config:
        yield "quantization_config needs a trained model; remove it, or set init_from_config=false"
    known = any(quantization.get(key) for key in ("quant_method", "load_in_4bit", "load_in_8bit"))
    if quantization and not known:
        yield (
            "quantization_config says neither load_in_8bit nor quant_method; write"
            " quantization_config={load_in_8bit: true}"
        )
    elif quantization and not adapters and not quantization.get("dequantize"):
        yield (
            "quantization_config: a quantized model is frozen, and only adapters to it can be trained; set"
            " use_peft=true"
        )
    yield from _method_problems(quantization)
    yield from rope_scaling_problems(config.rope_scaling)


def _method_problems(quantization: Mapping[str, Any]) -> Iterator[str]:
    """The method of quantization; its names come from transformers, which is only imported if one is given."""
    method = quantization.get("quant_method")
    if method is None:
        return
    in_bits = next((key for key in ("load_in_4bit", "load_in_8bit") if quantization.get(key)), None)
    if method == _BITSANDBYTES and in_bits is not None:
        return
    if in_bits is not None:
        yield f"quantization_config: quant_method is {_BITSANDBYTES} for {in_bits}, not {method}; remove quant_method"
        return
    if method == _BITSANDBYTES:
        yield (
            f"quantization_config: quant_method={_BITSANDBYTES} needs a number of bits; add load_in_8bit: true, or"
            " load_in_4bit: true"
        )
        return
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    known = sorted(name for name in AUTO_QUANTIZATION_CONFIG_MAPPING if not name.startswith(_BITSANDBYTES))
    if method not in known:
        yield (
            f"quantization_config: quant_method {method!r} is unknown; use one of {', '.join(known)}, or"
            " load_in_8bit: true"
        )
