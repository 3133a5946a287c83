"""The class and the arguments of the optimizer of a run, where the Trainer's own choice does not do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from sftkit.errors import ConfigError
from sftkit.training.arguments.checks.muon_settings import muon_settings
from sftkit.training.arguments.checks.optimizer_checks import MUON
from sftkit.training.optimization.learning_rates import RateRule
from sftkit.training.optimization.muon import MuonWithAdamW, hidden_matrices
from sftkit.training.optimization.parameter_groups import parameter_groups

if TYPE_CHECKING:
    from transformers import TrainingArguments

_OWN_GROUPS = ("params", "model", "optimizer_dict")
"""Arguments by which transformers gives an optimizer the parameters itself."""


def optimizer_for(trainer: Trainer, model: Any, rules: Sequence[RateRule]) -> tuple[Any, dict[str, Any]]:
    """The class of an optimizer, and its arguments with the groups of parameters as `params`.

    Args:
        trainer: the trainer of the run.
        model: as it will be trained, possibly wrapped.
        rules: parameters with learning rates of their own.

    Raises:
        ConfigError: the optimizer divides the parameters itself, or there is no matrix for Muon.
    """
    arguments = trainer.args
    if arguments.optim == MUON:
        kind: Any = MuonWithAdamW
        settings = muon_arguments(arguments, model)
    else:
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


def muon_arguments(arguments: TrainingArguments, model: Any) -> dict[str, Any]:
    """The arguments of Muon except the groups of parameters.

    Raises:
        ConfigError: there is no matrix for it.
    """
    matrices = hidden_matrices(model)
    if not matrices:
        raise ConfigError(f"optim={MUON} is for hidden matrices, and none is trained; use optim=adamw_torch")
    betas = (arguments.adam_beta1, arguments.adam_beta2)
    settings = muon_settings(arguments.optim_args)
    return {
        "lr": arguments.learning_rate,
        "matrices": matrices,
        "betas": betas,
        "eps": arguments.adam_epsilon,
        **settings,
    }
