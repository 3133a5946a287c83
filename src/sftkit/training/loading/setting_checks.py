"""Find settings about loading a model that cannot be used, from the configuration alone."""

from __future__ import annotations

from collections.abc import Iterator

from sftkit.config.commands import TrainConfig

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

_SCALED_BY_FACTOR = frozenset({"linear", "dynamic", "yarn", "llama3"})
"""Kinds of RoPE scaling that need a factor."""


def loading_problems(config: TrainConfig) -> Iterator[str]:
    """Yield a sentence for each setting about loading that cannot be used; nothing is imported or loaded."""
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
    kind = config.rope_scaling.get("rope_type", config.rope_scaling.get("type"))
    if config.rope_scaling and kind is None:
        yield "rope_scaling needs rope_type; write rope_scaling={rope_type: yarn, factor: 4.0}"
    elif kind in _SCALED_BY_FACTOR and "factor" not in config.rope_scaling:
        yield f"rope_scaling: {kind} needs a factor; write rope_scaling={{rope_type: {kind}, factor: 4.0}}"
