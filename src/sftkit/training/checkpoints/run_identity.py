"""What makes two runs the same run: everything that decides which losses they see, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.config.fields import to_plain_data
from sftkit.core.splits import TRAIN
from sftkit.shards.reading import ShardSet
from sftkit.storage.files import file_size

if TYPE_CHECKING:
    from transformers import TrainingArguments

if TYPE_CHECKING:
    from transformers import TrainingArguments

_OF_THE_CONFIG = (
    *("model_name_or_path", "init_from_config", "torch_dtype", "add_special_tokens", "max_seq_length", "overflow"),
    *("tokens_per_device_batch", "shuffle_window", "freeze", "use_peft", "load_in_4bit", "lora_r", "lora_alpha"),
    *("lora_dropout", "lora_target_modules", "lora_modules_to_save"),
)
_OF_THE_TRAINER = (
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "adam_beta1"),
    *("adam_beta2", "adam_epsilon", "optim", "optim_args", "optim_target_modules", "max_grad_norm", "max_steps"),
    *("num_train_epochs", "seed", "data_seed", "neftune_noise_alpha", "bf16", "fp16", "label_smoothing_factor"),
    *("train_sampling_strategy", "dataloader_drop_last", "average_tokens_across_devices"),
)


def run_identity(
    config: TrainConfig, arguments: TrainingArguments, shards: ShardSet, rows_per_step: int, *, padded: bool
) -> dict[str, Any]:
    """What a run is, as JSON has it. Where it logs, saves and evaluates, and how many processes it has, is not in it.

    Args:
        config, arguments: of the run.
        shards: what it trains on.
        rows_per_step: rows (micro-batches, with a token budget) that all processes together take in a step.
        padded: whether batches are padded, and rows therefore sorted by length.
    """
    own = {name: to_plain_data(getattr(config, name)) for name in _OF_THE_CONFIG}
    theirs = {name: getattr(arguments, name, None) for name in _OF_THE_TRAINER}
    streaming = config.dataprocessor.streaming
    run = {
        **own,
        **theirs,
        "data": _data(shards),
        "rows_a_step": rows_per_step,
        "streaming": streaming,
        "padded": padded,
    }
    found: dict[str, Any] = json.loads(json.dumps(run, default=str))
    return found


def _data(shards: ShardSet) -> str:
    """Of which data: what the manifest says made it, else names and sizes of the files."""
    if shards.manifest is not None:
        return shards.manifest.fingerprint
    files = [(path.name, file_size(path)) for path in shards.splits.get(TRAIN, ())]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def identity_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What two runs differ in, in words."""
    now = json.loads(json.dumps(ours))  # as it is read back
    names = sorted({*theirs, *now})
    return [
        f"{name}: {_short(theirs.get(name))}, now {_short(now.get(name))}"
        for name in names
        if theirs.get(name) != now.get(name)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
