"""The data type of mixed-precision training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import TrainingArguments


def mixed_precision(arguments: TrainingArguments) -> torch.dtype | None:
    """The data type of mixed-precision training; None if the run computes in the data type of the model."""
    return torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
