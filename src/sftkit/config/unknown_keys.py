"""What is said about a key that does not exist: the key of this program that it is elsewhere, or a similar one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.foreign_keys.foreign_key import ForeignKey
from sftkit.config.foreign_keys.tables import DATASETS, TOP_LEVEL, find_foreign_key
from sftkit.config.foreign_keys.training_keys import USUAL_TRAINING_ARGUMENTS
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.shared_options import DataOptions

_DATASET_KEYS = frozenset(field.name for field in fields(DatasetConfig))
_SHARED_KEYS = frozenset(field.name for field in fields(DataOptions))
_TRAINING_ARGUMENTS = "training_arguments"
_SECTIONS_WITH_FOREIGN_KEYS = frozenset({TOP_LEVEL, DATASETS, "dataprocessor", _TRAINING_ARGUMENTS})
_KEYS_OF_COMMANDS = {
    "preprocess": frozenset(field.name for field in fields(PreprocessConfig)),
    "train": frozenset(field.name for field in fields(TrainConfig)) | USUAL_TRAINING_ARGUMENTS,
    "inspect-shards": frozenset(field.name for field in fields(InspectConfig)),
}


def unknown_key_message(spelled: str, name: str, section: str, keys: Collection[str], hint: str) -> str:
    """Return the sentence about a key that does not exist.

    Args:
        spelled: What the user wrote, as in `option --key`.
        name: The key within its section.
        section: Dotted path of the section without indices, such as `datasets`; "" for the top level.
        keys: The keys of the section.
        hint: What to say if no other tool has the key: a similar name, or nothing.

    Example:
        >>> unknown_key_message("key 'cutoff_len'", "cutoff_len", "", ["max_seq_length"], "")
        "unknown key 'cutoff_len' (did you mean 'max_seq_length'?)"
        >>> unknown_key_message("key 'overlow'", "overlow", "", ["overflow"], " (did you mean 'overflow'?)")
        "unknown key 'overlow' (did you mean 'overflow'?)"
    """
    found = find_foreign_key(name, section)
    if hint and section not in _SECTIONS_WITH_FOREIGN_KEYS:
        return f"unknown {spelled}{hint}"  # an argument of a handler
    if found is not None:
        return f"unknown {spelled}{_remedy(*found, section, keys)}"
    plain = name.replace("-", "_")
    commands = [f"`sftkit {command}`" for command, its in _KEYS_OF_COMMANDS.items() if plain in its]
    if section == TOP_LEVEL and commands:
        return f"unknown {spelled}: it is a key of {' and '.join(commands)}"
    if section != TOP_LEVEL and plain in _SHARED_KEYS:
        return f"unknown {spelled}: it is a key at the top level, not of {section}"
    return f"unknown {spelled}{hint}"


def _remedy(table: str, foreign: ForeignKey, section: str, keys: Collection[str]) -> str:
    note = f": {foreign.note}" if foreign.note else ""
    if not foreign.key:
        return note
    key, place = foreign.key, ""
    if table == DATASETS and key in _DATASET_KEYS:
        key = key if section == DATASETS else f"{DATASETS}[0].{key}"
    elif section != TOP_LEVEL and key not in keys and "." not in key:
        place = ", a key at the top level"
    elif section == TOP_LEVEL and _is_of_train(key, keys):
        place = ", a key of `sftkit train`"
    return f" (did you mean {key!r}{place}?){note}"


def _is_of_train(key: str, keys: Collection[str]) -> bool:
    """Whether another command than `train` lacks the key, which is one of its own or a training argument."""
    return key not in keys and key not in _ELSEWHERE and "." not in key and _TRAINING_ARGUMENTS not in keys


_ELSEWHERE = frozenset({"output_dir", "chat_template", "streaming", "sampling_stopping_strategy"})
"""Counterparts that are no training arguments: options of `preprocess`, and short names of nested keys."""
