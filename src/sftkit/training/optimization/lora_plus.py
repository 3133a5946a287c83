"""LoRA+: a higher learning rate for the matrices B of adapters than for A (https://arxiv.org/abs/2402.12354)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sftkit.training.optimization.learning_rates import RateRule

if TYPE_CHECKING:
    import torch

NAME = "lora_B"
_B = (".lora_B.", ".lora_embedding_B.")


def lora_plus_rules(
    ratio: float | None, model: torch.nn.Module, learning_rate: float, others: Iterable[RateRule]
) -> list[RateRule]:
    """Give the matrices B of adapters a learning rate of their own.

    Args:
        ratio: `loraplus_lr_ratio`; None for the same learning rate as A.
        model: with adapters.
        learning_rate: of the run.
        others: parameters that have learning rates already, and keep them.
    """
    if ratio is None:
        return []
    taken = frozenset[str]().union(*(rule.parameters for rule in others))
    trained = [name for name, values in model.named_parameters() if values.requires_grad]
    found = frozenset(name for name in trained if any(part in name for part in _B)) - taken
    return [RateRule(NAME, learning_rate * ratio, found)] if found else []
