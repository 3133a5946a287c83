"""The class and the arguments of the optimizer of a run, where the Trainer's own choice does not do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from sftkit.errors import ConfigError
from sftkit.training.optimization.learning_rates import RateRule
from sftkit.training.optimization.parameter_groups import parameter_groups

if TYPE_CHECKING:
    pass

_OWN_GROUPS = ("params", "model", "optimizer_dict")
"""Arguments by which transformers gives an optimizer the parameters itself."""


def optimizer_for(trainer: Trainer, model: Any, rules: Sequence[RateRule]) -> tuple[Any, dict[str, Any]]:
    """The class of an optimizer, and its arguments with the groups of parameters as `params`.

    Args:
        trainer: the trainer of the run.
        model: as it will be trained, possibly wrapped.
        rules: parameters with learning rates of their own.

    Raises:
        ConfigError: the optimizer divides the parameters itself.
    """
    arguments = trainer.args
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    if any(name in settings for name in _OWN_GROUPS):
        raise ConfigError(f"optim={arguments.optim} has the same learning rate for all parameters; use another optim")
    groups = parameter_groups(
        model.named_parameters(),
        rules,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        decayed=frozenset(trainer.get_decay_parameter_names(model)),
    )
    return kind, {**settings, "params": groups}
