"""Choose the fastest attention implementation that is installed and that model and hardware support."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)

_HOPPER = (9, 0)
_AMPERE = (8, 0)


@dataclass(frozen=True)
class AttentionContext:
    """What decides whether flash attention can be used."""

    capability: tuple[int, int] | None
    """Compute capability of the NVIDIA GPU; None without one."""

    half_precision: bool
    """Whether the model computes in 16 bits."""

    has_flash_2: bool
    """Whether flash-attn is installed."""

    has_flash_3: bool
    """Whether flash-attn-3 is installed."""


def choose_attention(config: TrainConfig, arguments: TrainingArguments, model_class: Any) -> str | None:
    """The attention implementation to request from transformers; None lets it choose (SDPA, or eager).

    `attn_implementation` decides if it is set. Otherwise it is flash attention if nothing prevents it. If something
    does although `use_flash_attn` is set, a warning says what.

    Args:
        config: the run.
        arguments: its training arguments.
        model_class: class of the model. If None, it is not known whether the model supports flash attention, which is
            then used only if `use_flash_attn` is set.
    """
    if config.attn_implementation is not None:
        return config.attn_implementation
    return attention_for(_context(config, arguments), model_class, requested=config.use_flash_attn)


def attention_for(context: AttentionContext, model_class: Any, *, requested: bool) -> str | None:
    """Flash attention if it is possible; otherwise SDPA, with a warning, if it was requested, and None if not."""
    obstacle = flash_obstacle(context) or _class_obstacle(model_class, requested=requested)
    if obstacle is None:
        return "flash_attention_3" if context.has_flash_3 and context.capability == _HOPPER else "flash_attention_2"
    if not requested:
        return None
    warn_on_main_process(_log, f"use_flash_attn: {obstacle}; SDPA attention is used instead")
    return "sdpa"


def flash_obstacle(context: AttentionContext) -> str | None:
    """What prevents flash attention, as part of a sentence; None if nothing does.

    FlashAttention 2 needs Ampere or newer, FlashAttention 3 needs Hopper, and both compute only in 16 bits
    (https://github.com/Dao-AILab/flash-attention).
    """
    if context.capability is None:
        return "there is no GPU"
    if context.capability < _AMPERE:
        return "the GPU is older than Ampere"
    if not (context.has_flash_2 or (context.has_flash_3 and context.capability == _HOPPER)):
        return "flash-attn is not installed (pip install 'sftkit[flash-attn]')"
    if not context.half_precision:
        return "it only computes in 16 bits (set torch_dtype=bfloat16 or bf16=true)"
    return None


def _class_obstacle(model_class: Any, *, requested: bool) -> str | None:
    if model_class is None:
        return None if requested else "the model's class is not known"
    return None if model_class._supports_flash_attn else f"{model_class.__name__} does not support it"


def _context(config: TrainConfig, arguments: TrainingArguments) -> AttentionContext:
    import torch
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    on_gpu = not arguments.use_cpu and torch.cuda.is_available()
    return AttentionContext(
        capability=torch.cuda.get_device_capability(arguments.device) if on_gpu else None,
        half_precision=config.torch_dtype not in (None, "float32") or arguments.bf16 or arguments.fp16,
        has_flash_2=is_flash_attn_2_available(),
        has_flash_3=is_flash_attn_3_available(),
    )
