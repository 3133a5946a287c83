"""Settings of the optimizer and its learning rates that cannot work, found before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.training.arguments.checks.muon_settings import muon_settings
from sftkit.training.distributed import weights_are_sharded

if TYPE_CHECKING:
    from transformers import TrainingArguments

_ONLY_IN_EXPRESSIONS = re.compile(r"[\\()|^$+{}]|\.\*|\.\?")

MUON = "muon"
"""Value of `optim` that transformers does not have: Muon for hidden matrices, AdamW for everything else."""

_ALWAYS_KEEPING = frozenset({"stable_adamw"})
_SWITCHES: Mapping[str, str] = MappingProxyType(
    {
        "adamw_torch_8bit": "bf16_stochastic_round",
        "adamw_torch_4bit": "bf16_stochastic_round",
        "adamw_anyprecision": "use_kahan_summation",
    }
)
"""Optimizers that keep small updates of 16-bit weights if this key of `optim_args` is true."""

_WITHOUT_GROUPS = ("galore", "apollo", "lomo", "adalomo")
"""Beginnings of the optimizers that transformers gives its own groups of parameters, or none."""


def is_expression(pattern: str) -> bool:
    """Whether a pattern of names has what only regular expressions have, so that it may be one.

    Example:
        >>> is_expression("model.layers.[0-3].*"), is_expression("(q|k)_proj"), is_expression("lm_head")
        (True, True, False)
    """
    return _ONLY_IN_EXPRESSIONS.search(pattern) is not None


def rate_problems(config: TrainConfig) -> Iterator[str]:
    """Yield what is wrong with the learning rates of a config, without a model."""
    for pattern, rate in config.learning_rates.items():
        if rate < 0:
            yield f"learning_rates.{pattern} must be 0 or more, not {rate:g}"
        if not pattern:
            yield "learning_rates has an empty pattern; give a part of the names of parameters"
        elif is_expression(pattern):
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"learning_rates: {pattern!r} is not a regular expression: {error}"


def optimizer_problems(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    """Yield a sentence for each setting that the optimizer of a run cannot work with."""
    given = [key for key in ("embedding_lr", "learning_rates") if getattr(config, key) not in (None, {})]
    optimizer = str(getattr(arguments.optim, "value", arguments.optim))
    if given and optimizer.startswith(_WITHOUT_GROUPS):
        yield f"{given[0]}: optim={optimizer} has one learning rate for all parameters; use another optim"
    if optimizer == MUON and weights_are_sharded(arguments):
        yield f"optim={MUON} computes with whole matrices, which FSDP and DeepSpeed divide; use optim=adamw_torch"
    if optimizer == MUON:
        try:
            muon_settings(arguments.optim_args)
        except ValueError as error:
            yield f"optim_args: {error}"
    if given and _is_made_by_deepspeed(arguments):
        yield f"{given[0]}: the DeepSpeed config names an optimizer, which has one learning rate; remove it there"


def keeps_small_updates(arguments: TrainingArguments) -> bool:
    """Whether the optimizer does not lose updates that are too small for 16-bit weights.

    It adds them up (Kahan summation), or rounds at random. StableAdamW of optimi does the former for 16-bit weights.
    """
    optimizer = str(getattr(arguments.optim, "value", arguments.optim))
    switch = _SWITCHES.get(optimizer)
    given = dict(pair.partition("=")[::2] for pair in (arguments.optim_args or "").replace(" ", "").split(","))
    return optimizer in _ALWAYS_KEEPING or (switch is not None and given.get(switch, "").lower() in ("true", "1"))


def _is_made_by_deepspeed(arguments: TrainingArguments) -> bool:
    settings: Any = getattr(arguments, "hf_deepspeed_config", None)
    return settings is not None and "optimizer" in settings.config
