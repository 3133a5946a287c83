"""Refuse settings of new LoRA adapters that cannot be combined, before a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sftkit.config.commands import TrainConfig

_STARTS = ("gaussian", "orthogonal", "pissa", "pissa_niter_16", "olora")
_ITERATIONS = re.compile(r"pissa_niter_[0-9]+")
_NEEDS_DATA = ("eva", "corda", "lora_ga")
_CHANGING = ("pissa", "olora")
_VARIANTS = (
    *("use_rslora", "use_dora", "init_lora_weights", "lora_target_parameters"),
    *("lora_rank_pattern", "lora_alpha_pattern", "loraplus_lr_ratio"),
)


def changes_base(init_lora_weights: Any) -> bool:
    """Whether adapters that begin this way take their first values out of the base weights.

    Example:
        >>> changes_base("pissa_niter_4"), changes_base("gaussian"), changes_base(True)
        (True, False, False)
    """
    return isinstance(init_lora_weights, str) and init_lora_weights.startswith(_CHANGING)


def variant_problems(config: TrainConfig, *, trains_adapters: bool) -> Iterator[str]:
    """Yield a sentence for each setting of new adapters that cannot be used.

    Args:
        config: with the values of all keys.
        trains_adapters: whether the run has adapters at all.
    """
    if not trains_adapters:
        given = [key for key in _VARIANTS if getattr(config, key)]
        if given:
            yield f"{', '.join(given)}: only adapters have this; set use_peft=true"
        return
    begin = config.init_lora_weights
    if begin is not None and begin not in _STARTS and not _ITERATIONS.fullmatch(begin):
        yield _unknown_start(begin)
    if begin == "orthogonal" and (config.lora_r or 0) % 2:
        yield f"init_lora_weights=orthogonal needs an even lora_r, not {config.lora_r}"
    if changes_base(begin) and (config.load_in_4bit or config.quantization_config):
        key = "load_in_4bit" if config.load_in_4bit else "quantization_config"
        yield (
            f"init_lora_weights={begin} takes the first values of adapters out of the weights, which {key} quantizes; "
            "remove one of them"
        )
    if config.lora_target_parameters:
        cannot = {
            "use_dora": config.use_dora,
            "lora_dropout": config.lora_dropout,
            "init_lora_weights": changes_base(begin) or begin == "orthogonal",
        }
        for key in (key for key, value in cannot.items() if value):
            yield (
                f"{key}={getattr(config, key)} does not work with lora_target_parameters: peft has no such adapters for"
                " parameters; remove one of them"
            )
    for key in ("lora_rank_pattern", "lora_alpha_pattern"):
        for pattern, value in getattr(config, key).items():
            if value < 1:
                yield f"{key}.{pattern} must be at least 1, not {value}"
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"{key}: {pattern!r} is not a regular expression: {error}"


def _unknown_start(begin: str) -> str:
    if begin in _NEEDS_DATA:
        return f"init_lora_weights={begin} looks at data before the run, which is not supported; use {_listed()}"
    if begin == "loftq":
        return (
            "init_lora_weights=loftq is not supported: it belongs to weights that are quantized in another way than "
            "they are loaded; use the default with load_in_4bit"
        )
    return f"init_lora_weights must be one of {_listed()}, not {begin!r}"


def _listed() -> str:
    return ", ".join(_STARTS)
