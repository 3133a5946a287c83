"""Divide the parameters of a model into groups for an optimizer, by learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftkit.training.optimization.learning_rates import RateRule, plain_name

if TYPE_CHECKING:
    import torch

_NAME = "name"
ParameterGroup = dict[str, Any]
"""`params`, `lr` and `weight_decay`, as optimizers of PyTorch take them, and `name`: that of its rule, or empty."""


def parameter_groups(
    parameters: Iterable[tuple[str, torch.nn.Parameter]],
    rules: Sequence[RateRule],
    *,
    learning_rate: float,
    weight_decay: float,
    decayed: Collection[str],
) -> list[ParameterGroup]:
    """Divide trained parameters into groups: those without a rule first, then a group or two for each rule.

    Weight decay does not depend on rules. The first group has the learning rate of the run, and is there even if it has
    no parameters: the Trainer logs its learning rate.

    Args:
        parameters: `named_parameters` of the model; those that are frozen are left out.
        rules: parameters with learning rates of their own. A parameter belongs to the first rule that has it.
        learning_rate: of all other parameters.
        weight_decay: of the parameters in `decayed`. Others have none.
        decayed: names of parameters that decay (`Trainer.get_decay_parameter_names`).

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> rule = RateRule("bias", 0.5, frozenset({"bias"}))
        >>> groups = parameter_groups(
        ...     layer.named_parameters(), [rule], learning_rate=0.1, weight_decay=0.01, decayed=["weight"]
        ... )
        >>> [(group["name"], group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
        [('', 0.1, 0.01, 1), ('bias', 0.5, 0.0, 1)]
    """
    rates = {"": learning_rate, **{rule.name: rule.learning_rate for rule in rules}}
    members: dict[tuple[str, bool], list[torch.nn.Parameter]] = {("", True): []}
    members |= {(name, decays): [] for name in rates for decays in (True, False)}
    for name, values in parameters:
        if values.requires_grad:
            rule = next((rule.name for rule in rules if plain_name(name) in rule.parameters), "")
            members[rule, name in decayed].append(values)
    return [
        {"params": params, "lr": rates[name], "weight_decay": weight_decay if decays else 0.0, _NAME: name}
        for (name, decays), params in members.items()
        if params or (name, decays) == ("", True)
    ]


def rates_by_name(groups: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The present learning rate of each rule, by its name; empty if there are no rules."""
    return {group[_NAME]: float(group["lr"]) for group in groups if group.get(_NAME)}
