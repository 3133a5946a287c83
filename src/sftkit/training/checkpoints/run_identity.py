"""The identity of a run: every setting that decides which losses it sees, and nothing else.

Two runs with equal identities see the same losses, step by step. Where a run logs, saves and evaluates, how a step is
divided into micro-batches, and the number of processes are not part of it: they do not change a loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.config.fields import keys_where, to_plain_data
from sftkit.core.splits import TRAIN
from sftkit.shards.reading import ShardSet
from sftkit.storage.adapter_files import open_adapter
from sftkit.storage.files import file_size
from sftkit.training.adapters.adapter_choice import continued_adapter
from sftkit.training.arguments.public_values import PublicValues

if TYPE_CHECKING:
    from transformers import TrainingArguments

_CONFIG_FIELDS = keys_where(TrainConfig, lambda info: info.run_identity)
_TRAINER_FIELDS = (
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "adam_beta1"),
    *("adam_beta2", "adam_epsilon", "optim", "optim_args", "optim_target_modules", "max_grad_norm", "max_steps"),
    *("num_train_epochs", "seed", "data_seed", "neftune_noise_alpha", "bf16", "fp16", "label_smoothing_factor"),
    *("train_sampling_strategy", "dataloader_drop_last", "average_tokens_across_devices"),
)

_ROWS_PER_STEP = "rows_a_step"  # a key of the file format: checkpoints of earlier versions must stay comparable
_SHOWN_NAMES: Mapping[str, str] = MappingProxyType({_ROWS_PER_STEP: "rows per step"})
_MOST_CHARACTERS = 40  # of a value in a message


def run_identity(
    config: TrainConfig, arguments: TrainingArguments, shards: ShardSet, rows_per_step: int, *, padded: bool
) -> dict[str, Any]:
    """The identity of a run, as plain JSON data.

    Args:
        config: the run.
        arguments: its training arguments.
        shards: the data it trains on.
        rows_per_step: rows (micro-batches, with a token budget) that all processes together take in a step.
        padded: whether batches are padded, and rows therefore sorted by length.
    """
    public = PublicValues.of(config)  # the identity is written into checkpoints
    own = {name: public.identifying(to_plain_data(getattr(config, name))) for name in _CONFIG_FIELDS}
    trainer = {name: public.identifying(getattr(arguments, name, None)) for name in _TRAINER_FIELDS}
    run = {
        **own,
        **trainer,
        "data": _data(shards),
        _ROWS_PER_STEP: rows_per_step,
        "streaming": config.dataprocessor.streaming,
        "padded": padded,
    }
    if config.adapter_name_or_path:
        continues = continued_adapter(config) is not None
        run["adapters"] = [*(open_adapter(name).digest for name in config.adapter_name_or_path), continues]
    found: dict[str, Any] = json.loads(json.dumps(run, default=str))
    return found


def _data(shards: ShardSet) -> str:
    """The fingerprint in the manifest, or without a manifest a hash of the names and sizes of the files."""
    if shards.manifest is not None:
        return shards.manifest.fingerprint
    files = [(path.name, file_size(path)) for path in shards.splits.get(TRAIN, ())]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def identity_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What differs between the identity of a checkpoint and that of this run, one phrase for each field.

    A field that a checkpoint of an earlier version lacks differs if it is set now.

    Example:
        >>> identity_differences({"seed": 1, "max_steps": 9}, {"seed": 2, "max_steps": 9})
        ['seed: 1, now 2']
    """
    current = json.loads(json.dumps(ours))  # as it would be read back from a checkpoint
    return [
        f"{_SHOWN_NAMES.get(name, name)}: {_short(theirs.get(name))}, now {_short(current.get(name))}"
        for name in sorted({*theirs, *current})
        if theirs.get(name) != current.get(name) and (name in theirs or current[name])
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
