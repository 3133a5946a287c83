"""Which parameters of a model have a learning rate of their own (`embedding_lr`, `learning_rates`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, TrainingError
from sftkit.training.arguments.checks.optimizer_checks import is_expression
from sftkit.training.models.freezing import names_like, similar_names

if TYPE_CHECKING:
    import torch

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")

_EMBEDDINGS = "embedding_lr"


@dataclass(frozen=True)
class RateRule:
    """Parameters that are trained with a learning rate of their own."""

    name: str
    """What the log calls it, such as `embedding_lr`."""

    learning_rate: float

    parameters: frozenset[str]
    """Names of `named_parameters`, all of them trained."""


def rate_rules(config: TrainConfig, model: torch.nn.Module) -> list[RateRule]:
    """Find the parameters that each learning rate of a config is for.

    A parameter that several patterns match belongs to the first of them. Patterns come before `embedding_lr`.

    Args:
        config: the run.
        model: as it will be trained: with adapters, and with frozen parameters.

    Raises:
        TrainingError: a pattern matches no parameter, none that is trained, or only those of earlier patterns.
        ConfigError: patterns match all parameters that `embedding_lr` is for.
    """
    trained = {name: values.requires_grad for name, values in model.named_parameters()}
    rules: list[RateRule] = []
    for pattern, rate in config.learning_rates.items():
        key = f"learning_rates.{pattern}"
        found = matching_names(pattern, trained)
        if not found:
            raise TrainingError(f"{key}: no parameter matches; {similar_names(pattern, trained)}")
        rules.append(RateRule(pattern, rate, _remaining(key, found, trained, rules)))
    if config.embedding_lr is not None:
        found = _embedding_names(model)
        rules.append(RateRule(_EMBEDDINGS, config.embedding_lr, _remaining(_EMBEDDINGS, found, trained, rules)))
    return rules


def matching_names(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern matches: as in `freeze`, or as a regular expression that fits a part of the name.

    Example:
        >>> names = ["model.layers.0.mlp.up.weight", "model.layers.1.norm.weight", "lm_head.weight"]
        >>> matching_names("lm_head", names), matching_names(r"layers\\.[01]\\.mlp", names)
        (['lm_head.weight'], ['model.layers.0.mlp.up.weight'])
        >>> matching_names("*.norm.*", names)
        ['model.layers.1.norm.weight']
    """
    names = list(names)
    found = names_like(pattern, names)
    if not found and is_expression(pattern):
        found = [name for name in names if re.search(pattern, name)]
    return found


def plain_name(name: str) -> str:
    """The name of a parameter without what wrappers of FSDP and torch.compile add to it.

    Example:
        >>> plain_name("_orig_mod.model._fsdp_wrapped_module.norm.weight")
        'model.norm.weight'
    """
    return _WRAPPERS.sub("", name)


def _remaining(
    key: str, found: Iterable[str], trained: Mapping[str, bool], rules: Collection[RateRule]
) -> frozenset[str]:
    """The trained ones of the names found that no earlier rule has."""
    unfrozen = {name for name in found if trained[name]}
    if not unfrozen:
        raise TrainingError(f"{key}: all parameters that it is for are frozen; remove it, or train them")
    left = unfrozen.difference(*(rule.parameters for rule in rules))
    if not left:
        names = ", ".join(rule.name for rule in rules if rule.parameters & unfrozen)
        if key == _EMBEDDINGS:  # patterns always come first
            raise ConfigError(
                f"{key}: all its parameters belong to {names} of learning_rates, which comes first; remove {key}, or"
                f" the pattern {names} from learning_rates"
            )
        raise TrainingError(f"{key}: all its parameters belong to {names}, which is given before; set it first")
    return frozenset(left)


def _embedding_names(model: Any) -> list[str]:
    """The parameters below the modules of input and output embeddings; tied ones have one name."""
    modules = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    wanted = {id(values) for module in modules for values in module.parameters()}
    return [name for name, values in model.named_parameters() if id(values) in wanted]
