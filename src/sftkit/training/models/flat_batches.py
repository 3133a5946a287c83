"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sftkit.config.commands import TrainConfig
from sftkit.training.data.boundaries import Boundaries, by_positions, by_sequence, for_flash
from sftkit.training.distributed import weights_are_spread
from sftkit.training.models.capabilities import Capabilities, at_rest, by_its_class, tried, try_capabilities
from sftkit.training.models.sequence_attention import NAME as BY_SEQUENCE_ATTENTION
from sftkit.training.models.sequence_attention import (
    attend_at_once,
    attend_by_sequence,
    can_attend_by_sequence,
    passes_its_windows,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments


def abilities_of(model: PreTrainedModel, config: TrainConfig, arguments: TrainingArguments) -> Capabilities:
    """What the model can do, tried out on the device that it will train on where it is whole.

    Where it attends by SDPA and nothing else was asked for, it is made to do so sequence by sequence, if it can.
    """
    if weights_are_spread(arguments):
        return by_its_class(model)
    if getattr(model, "quantization_method", None) is None:
        model.to(arguments.device)  # type: ignore[arg-type]  # transformers types it as if it took no device
    precision = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
    free = config.attn_implementation is None and config.padding_free != "false" and not arguments.torch_compile
    if free and can_attend_by_sequence(model) and _passes_its_windows(model, precision):
        attend_by_sequence(model)
        abilities = try_capabilities(model, boundaries_of(model), precision)
        if abilities.keeps_apart:
            return abilities
        attend_at_once(model)
    return try_capabilities(model, boundaries_of(model), precision)


def _passes_its_windows(model: PreTrainedModel, precision: torch.dtype | None) -> bool:
    with at_rest(model, precision):
        return tried("sliding windows", lambda: passes_its_windows(model))


def boundaries_of(model: PreTrainedModel) -> Boundaries:
    """How the model's attention is told where sequences end."""
    attention = str(getattr(model.config, "_attn_implementation", ""))
    if attention == BY_SEQUENCE_ATTENTION:
        return by_sequence
    return for_flash if attention.startswith("flash") else by_positions
