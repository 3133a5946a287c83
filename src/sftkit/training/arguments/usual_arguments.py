"""The twenty training arguments that `train --help` shows, and the defaults that sftkit gives some of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

USUAL_ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "per_device_train_batch_size": "Number of rows in a batch, per device.",
        "gradient_accumulation_steps": "Number of batches per step and device.",
        "num_train_epochs": "Number of times to train on every row.",
        "max_steps": "Number of steps to train, instead of num_train_epochs. -1: not limited.",
        "learning_rate": "Highest learning rate.",
        "lr_scheduler_type": "How the learning rate falls after the warmup.",
        "warmup_steps": "Number of steps in which the learning rate rises from 0; below 1, a fraction of the run.",
        "optim": "Optimizer: adamw_torch, adamw_torch_fused, muon, adafactor, sgd, adamw_8bit and others.",
        "weight_decay": "Weight decay, which leaves out biases and normalization layers.",
        "adam_beta1": "Decay rate of the first moment in AdamW.",
        "adam_beta2": "Decay rate of the second moment in AdamW.",
        "bf16": "Compute in bfloat16, and keep the weights in torch_dtype.",
        "gradient_checkpointing": "Compute activations again in the backward pass instead of keeping them: "
        "less memory, about 20% slower.",
        "eval_strategy": "When to evaluate on the validation split.",
        "save_strategy": "When to save a checkpoint.",
        "save_steps": "Number of steps between checkpoints; below 1, a fraction of the run.",
        "save_total_limit": "Number of checkpoints to keep. Default: all.",
        "logging_steps": "Number of steps between log events; below 1, a fraction of the run.",
        "report_to": "Trackers to log to, besides training_logs.jsonl: tensorboard, wandb, mlflow, ... (extras of the "
        "same names).",
        "seed": "Seed of the order of rows and of new weights.",
    }
)
"""Name -> what it means, in the order of `--help`. `--help_all` shows all others, in the words of transformers."""

OWN_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "log_level_replica": "error",
        "logging_steps": 10,
        "report_to": "none",
        "disable_tqdm": True,
        "do_train": True,
        # Every parameter is used in every micro-batch, so DDP does not need its slow search for unused ones.
        "ddp_find_unused_parameters": False,
    }
)
"""Defaults that differ from those of transformers."""
