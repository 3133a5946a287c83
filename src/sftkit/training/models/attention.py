"""Which attention a model computes with: the fastest that is installed and that the hardware can do."""

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
    """The attention implementation to ask transformers for; None leaves it to choose (SDPA, eager where it must).

    `attn_implementation` is taken at its word. Otherwise it is flash attention where nothing stands against it; what
    does is said once where `use_flash_attn` asks for it.

    Args:
        config, arguments: the run.
        model_class: of the model; None where it is not known, which leaves flash attention to those who ask for it.
    """
    if config.attn_implementation is not None:
        return config.attn_implementation
    return attention_for(_surroundings(config, arguments), model_class, asked=config.use_flash_attn)


def attention_for(around: AttentionContext, model_class: Any, *, asked: bool) -> str | None:
    """Flash attention where it can be had; else SDPA with a warning where it was asked for, and None where not."""
    obstacle = flash_obstacle(around) or _class_obstacle(model_class, asked=asked)
    if obstacle is None:
        return "flash_attention_3" if around.has_flash_3 and around.capability == _HOPPER else "flash_attention_2"
    if not asked:
        return None
    warn_on_main_process(_log, f"use_flash_attn: {obstacle}; SDPA attention is used instead")
    return "sdpa"


def flash_obstacle(around: AttentionContext) -> str | None:
    """What keeps flash attention from being used; None when nothing does.

    FlashAttention 2 needs Ampere or newer, FlashAttention 3 is made for Hopper, both compute in 16 bits:
    https://github.com/Dao-AILab/flash-attention
    """
    if around.capability is None:
        return "there is no GPU"
    if around.capability < _AMPERE:
        return "the GPU is older than Ampere"
    if not (around.has_flash_2 or (around.has_flash_3 and around.capability == _HOPPER)):
        return "flash-attn is not installed (pip install 'sftkit[flash-attn]')"
    if not around.half_precision:
        return "it computes in 16 bits only (torch_dtype=bfloat16 or bf16=true)"
    return None


def _class_obstacle(model_class: Any, *, asked: bool) -> str | None:
    if model_class is None:
        return None if asked else "the model's class is not known"
    return None if model_class._supports_flash_attn else f"{model_class.__name__} cannot"


def _surroundings(config: TrainConfig, arguments: TrainingArguments) -> AttentionContext:
    import torch
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    on_gpu = not arguments.use_cpu and torch.cuda.is_available()
    return AttentionContext(
        capability=torch.cuda.get_device_capability(arguments.device) if on_gpu else None,
        half_precision=config.torch_dtype not in (None, "float32") or arguments.bf16 or arguments.fp16,
        has_flash_2=is_flash_attn_2_available(),
        has_flash_3=is_flash_attn_3_available(),
    )
