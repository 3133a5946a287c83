"""The size of optimizer states: of the optimizer itself, run on parameters without values, or of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from sftkit.training.arguments.checks.optimizer_checks import MUON
from sftkit.training.optimization.muon import MuonWithAdamW
from sftkit.training.optimization.optimizer_choice import muon_arguments

if TYPE_CHECKING:
    from transformers import TrainingArguments

_PARAMETERS = ("params", "optimizer_dict", "model")
_SMALL = 4096
"""Parameters with fewer values keep states in 32 bits, in bitsandbytes and torchao."""


@dataclass(frozen=True)
class StateSize:
    """What an optimizer keeps for a parameter.

    Example:
        >>> StateSize(count=2, bits=8, block=256).of(torch.empty(1024, 1024)) / 1024**2
        2.03125
        >>> StateSize(count=2, bits=8, block=256).of(torch.empty(1024)) / 1024
        8.0
    """

    count: int
    """States of the same shape as the parameter."""

    bits: int = 32

    block: int = 0
    """Numbers that share a scale in 32 bits; 0 for no scales."""

    def of(self, values: torch.Tensor, *, whole: bool = False) -> float:
        """Bytes for a parameter; `whole`: its states have 32 bits in any case."""
        number = values.numel() * self.count
        if whole or self.bits == 32 or values.numel() < _SMALL:
            return 4.0 * number
        return number * self.bits / 8 + (4 * number / self.block if self.block else 0)


_TABLE: Mapping[str, StateSize] = MappingProxyType(
    {
        **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), StateSize(2, 8, 256)),
        "paged_adamw_32bit": StateSize(2),
        **dict.fromkeys(("ademamix_8bit", "paged_ademamix_8bit"), StateSize(3, 8, 256)),
        **dict.fromkeys(("ademamix", "paged_ademamix_32bit"), StateSize(3)),
        **dict.fromkeys(("lion_8bit", "paged_lion_8bit", "rmsprop_bnb_8bit"), StateSize(1, 8, 256)),
        **dict.fromkeys(("lion_32bit", "paged_lion_32bit", "rmsprop_bnb", "rmsprop_bnb_32bit"), StateSize(1)),
        "adamw_torch_8bit": StateSize(2, 8, 256),
        "adamw_torch_4bit": StateSize(2, 4, 128),
    }
)
"""Optimizers that need a GPU to be made: of bitsandbytes (0.49) and torchao (0.14)."""


def table_bytes(optimizer: str, model: torch.nn.Module, trained: Iterable[torch.Tensor]) -> float | None:
    """States of an optimizer of the table, of paged ones in main memory; None for another one.

    Embeddings keep states in 32 bits under an optimizer of bitsandbytes with 8 bits: transformers asks for that.
    """
    size = _TABLE.get(optimizer)
    if size is None:
        return None
    embeddings = {
        id(values) for module in model.modules() if isinstance(module, torch.nn.Embedding)
        for values in module.parameters()
    }  # fmt: skip
    in_full = embeddings if "torch" not in optimizer else set()
    return sum(size.of(values, whole=id(values) in in_full) for values in trained)


def is_paged(optimizer: str) -> bool:
    """Whether an optimizer keeps its states in main memory, unless they are used."""
    return optimizer.startswith("paged")


def optimizer_maker(arguments: TrainingArguments, model: Any) -> Callable[[Sequence[torch.nn.Parameter]], Any]:
    """A function that makes the optimizer of a run for some parameters.

    Raises:
        Exception: whatever the optimizer raises that cannot be made for this run.
    """
    from transformers import Trainer

    def make(parameters: Sequence[torch.nn.Parameter]) -> Any:
        if arguments.optim == MUON:
            return MuonWithAdamW([{"params": list(parameters)}], **muon_arguments(arguments, model))
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        given = {name: value for name, value in settings.items() if name not in _PARAMETERS}
        own = next((settings[name] for name in _PARAMETERS if name in settings), None)
        return kind(list(parameters) if own is None else own, **given)

    return make
