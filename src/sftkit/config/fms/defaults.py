"""What `compat: fms` sets where a config does not: the defaults of fms-hf-tuning.

They are written into the config, so that a manifest records them and a run can be repeated without knowing them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from sftkit.config.aliases import HANDLER_ARGUMENT_ALIASES
from sftkit.config.schema.option_values import FMS

FMS_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "max_seq_length": 4096,
        "boundary": "joint",
        "render": "once",
        "torch_dtype": "bfloat16",
        "lora_r": 8,
        "lora_dropout": 0.05,
        "lora_target_modules": ("q_proj", "v_proj"),
        "logging_strategy": "epoch",
        "save_strategy": "epoch",
    }
)
"""Key -> the value that it has by default in fms-hf-tuning, and not in sftkit."""

_TOKENIZE = "tokenize"
_TRUNCATION = ("truncation", "max_length")
_CALL = "tokenizer_kwargs"


def with_compat_defaults(data: Mapping[str, Any], keys: Collection[str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the defaults of fms-hf-tuning if it sets `compat: fms`, else unchanged.

    Args:
        data: top-level keys and plain values, under their names.
        keys: the keys that the command has.
        extra: values of keys that are set elsewhere, in `training_arguments`.

    Example:
        >>> with_compat_defaults({"compat": "fms", "overflow": "drop"}, {"max_seq_length"}, {})
        {'compat': 'fms', 'overflow': 'drop', 'max_seq_length': 4096}
    """
    result = dict(data)
    if str(data.get("compat")).lower() != FMS:
        return result
    for key, value in FMS_DEFAULTS.items():
        if key in keys and key not in extra and result.get(key) is None:
            result[key] = list(value) if isinstance(value, tuple) else value
    if isinstance(data.get("datasets"), list):
        result["datasets"] = [_dataset(each) for each in data["datasets"]]
    return result


def _dataset(dataset: Any) -> Any:
    if not isinstance(dataset, Mapping):
        return dataset
    result = dict(dataset)
    split = dataset.get("split")
    if isinstance(split, Mapping) and split:  # what is not given is left out, and not the rest
        result["split"] = {"train": 0.0, "validation": 0.0} | {key: value for key, value in split.items() if value}
    if isinstance(dataset.get("data_handlers"), list):
        result["data_handlers"] = [_handler(each) for each in dataset["data_handlers"]]
    return result


def _handler(handler: Any) -> Any:
    """Let `tokenize` truncate, unless its arguments say otherwise."""
    if not isinstance(handler, Mapping) or handler.get("name") != _TOKENIZE:
        return handler
    arguments = handler.get("arguments") or {}
    if not isinstance(arguments, Mapping):
        return handler
    keywords = arguments.get("fn_kwargs") or {}
    if not isinstance(keywords, Mapping):
        return handler
    call = keywords.get(_CALL) or arguments.get(_CALL) or {}
    named = {HANDLER_ARGUMENT_ALIASES.get(key, key) for key in (*arguments, *keywords)}
    if _TRUNCATION[0] in named or (isinstance(call, Mapping) and not set(_TRUNCATION).isdisjoint(call)):
        return handler
    return {**handler, "arguments": {**arguments, "fn_kwargs": {**keywords, _TRUNCATION[0]: True}}}
