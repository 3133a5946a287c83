"""What a run changes about a model when it is loaded: its config, its quantization, arguments of `from_pretrained`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.core.error_text import single_line
from sftkit.errors import ConfigError, TrainingError
from sftkit.storage.model_location import model_location
from sftkit.training.distributed import warn_on_main_process
from sftkit.training.loading.model_kwargs import read_config
from sftkit.training.mixed_precision import mixed_precision

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, TrainingArguments

_log = logging.getLogger(__name__)

_LONGER_CONTEXT = frozenset({"linear", "yarn", "llama3"})
"""Kinds of RoPE scaling after which a model has factor times its original positions."""

_DEQUANTIZABLE = ("mxfp4", "fp8", "compressed-tensors", "metal")
"""Methods of quantization that transformers undoes when it loads a model (`dequantize`), 5.23."""

_FROZEN_ONLY = ("bitsandbytes", "gptq", "awq", "hqq", "quanto", "eetq", "aqlm", "auto-round")


def check_stored_quantization(config: TrainConfig) -> None:
    """Check, before anything is loaded, that a model in a directory whose weights are quantized can be trained.

    Raises:
        TrainingError: its weights stay quantized, so that only adapters could be trained, or not even they.
    """
    try:
        text = (Path(model_location(config.model_name_or_path or "")) / "config.json").read_text(encoding="utf-8")
        stored = json.loads(text).get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return  # of the Hub, or reported when it is loaded
    problem = _stored_problem(config, stored)
    if problem is not None:
        raise TrainingError(problem)


def model_settings(location: str, config: TrainConfig) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """Read the config of a model, and change it as the run asks.

    Args:
        location: directory or Hub id.
        config: the run; `model_kwargs` can hold values of the model's config, and `rope_scaling` replaces its own.

    Returns:
        The config, and the remaining entries of `model_kwargs`, which are arguments of `from_pretrained`.

    Raises:
        TrainingError: the model cannot be trained as it is quantized.
        ConfigError: the RoPE scaling, or an entry of `model_kwargs`, is not valid.
    """
    settings, remaining = read_config(location, config)
    problem = _stored_problem(config, getattr(settings, "quantization_config", None))
    if problem is not None:
        raise TrainingError(problem)
    if config.rope_scaling:
        _scale_rope(settings.get_text_config(decoder=True), config.rope_scaling)
    return settings, remaining


def quantization_arguments(
    config: TrainConfig, arguments: TrainingArguments, settings: PreTrainedConfig
) -> dict[str, Any]:
    """Arguments of `from_pretrained` that quantize a model, or undo the quantization of its weights."""
    from transformers.quantizers.auto import AutoQuantizationConfig

    read: Any = AutoQuantizationConfig.from_dict
    stored = _method(getattr(settings, "quantization_config", None))
    if config.quantization_config:
        given = dict(config.quantization_config)
        if given.get("load_in_4bit"):
            given.setdefault("bnb_4bit_compute_dtype", _compute_dtype(config, arguments))
        on_device = {} if given.get("dequantize") else {"device_map": {"": arguments.device}}
        try:
            return {"quantization_config": read(given), **on_device}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"quantization_config: {single_line(error)}") from error
    if config.load_in_4bit:
        return {
            "quantization_config": read(_four_bits(config, arguments)),
            "device_map": {"": arguments.device},
        }
    if stored in _DEQUANTIZABLE:
        warn_on_main_process(
            _log,
            f"the weights of {config.model_name_or_path} are quantized ({stored}): they are converted back to be"
            " trained, and the model is saved without quantization",
        )
        return {"quantization_config": read({"quant_method": stored, "dequantize": True})}
    return {} if stored is None else {"device_map": {"": arguments.device}}


def _stored_problem(config: TrainConfig, stored: Any) -> str | None:
    method = _method(stored)
    adapters = config.use_peft or config.load_in_4bit
    name = config.model_name_or_path
    if method is None or method in _DEQUANTIZABLE:
        if method is not None and config.load_in_4bit:
            return (
                f"load_in_4bit: the weights of {name} are quantized already ({method}); remove load_in_4bit, and set"
                " use_peft=true"
            )
        return None
    if config.load_in_4bit or config.quantization_config:
        key = "load_in_4bit" if config.load_in_4bit else "quantization_config"
        return f"{key}: the weights of {name} are quantized already ({method}); remove {key}, and set use_peft=true"
    if method not in _FROZEN_ONLY:
        return (
            f"the weights of {name} are quantized ({method}), which transformers can neither train nor undo; train the"
            " model that they were made from"
        )
    if not adapters:
        return (
            f"the weights of {name} are quantized ({method}) and cannot be trained in full; set use_peft=true, or"
            " train the model that they were made from"
        )
    return None


def _method(stored: Any) -> str | None:
    """The method of a quantization config; None without one."""
    if stored is None:
        return None
    found = stored.get("quant_method") if isinstance(stored, Mapping) else getattr(stored, "quant_method", None)
    if found is None and isinstance(stored, Mapping) and (stored.get("load_in_4bit") or stored.get("load_in_8bit")):
        return "bitsandbytes"
    return str(getattr(found, "value", found)) if found is not None else "unknown"


def _scale_rope(settings: Any, given: Mapping[str, Any]) -> None:
    """Replace the RoPE scaling of a config; of layers that differ, only that of full attention.

    Raises:
        ConfigError: transformers does not take it, or the model has no rotary positions.
    """
    before = getattr(settings, "rope_parameters", None)
    if not isinstance(before, Mapping):
        raise ConfigError("rope_scaling: the model has no rotary positions; remove rope_scaling")
    full = before.get("full_attention")
    old = full if isinstance(full, Mapping) else before
    new = {key: old[key] for key in ("rope_theta", "partial_rotary_factor") if key in old} | dict(given)
    new["rope_type"] = new.pop("type", None) or new["rope_type"]
    original = new.get("original_max_position_embeddings") or getattr(settings, "max_position_embeddings", None)
    settings.rope_parameters = {**before, "full_attention": new} if old is full else new
    try:
        if new["rope_type"] in _LONGER_CONTEXT and original and float(new.get("factor") or 0) > 1:
            new.setdefault("original_max_position_embeddings", original)
            longer = int(original * float(new["factor"]))
            settings.max_position_embeddings = max(settings.max_position_embeddings, longer)
        settings.standardize_rope_params()
        settings.validate_rope()
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"rope_scaling: {single_line(error)}") from error
    _check_kind(new["rope_type"])


def _check_kind(kind: str) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if kind not in ROPE_INIT_FUNCTIONS and kind != "default":
        known = ", ".join(["default", *ROPE_INIT_FUNCTIONS])
        raise ConfigError(f"rope_scaling: rope_type must be one of {known}, not {kind!r}")


def _four_bits(config: TrainConfig, arguments: TrainingArguments) -> dict[str, Any]:
    """Quantization of QLoRA: NF4, with quantized scales (https://arxiv.org/abs/2305.14314)."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": _compute_dtype(config, arguments),
    }


def _compute_dtype(config: TrainConfig, arguments: TrainingArguments) -> Any:
    import torch

    mixed = mixed_precision(arguments)
    name = config.torch_dtype or "float32"
    return mixed or getattr(torch, "bfloat16" if name == "auto" else name)
