"""Looks up the keys of other tools."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sftkit.config.foreign_keys.data_keys import DATA_KEYS
from sftkit.config.foreign_keys.dataset_keys import DATASET_KEYS
from sftkit.config.foreign_keys.foreign_key import ForeignKey
from sftkit.config.foreign_keys.model_keys import MODEL_KEYS
from sftkit.config.foreign_keys.training_keys import TRAINING_KEYS

TOP_LEVEL = ""
DATASETS = "datasets"

FOREIGN_KEYS: Mapping[str, Mapping[str, ForeignKey]] = MappingProxyType(
    {
        TOP_LEVEL: MappingProxyType({each.name: each for each in (*MODEL_KEYS, *DATA_KEYS, *TRAINING_KEYS)}),
        DATASETS: MappingProxyType({each.name: each for each in DATASET_KEYS}),
    }
)
"""Section -> name -> key."""


def find_foreign_key(name: str, section: str) -> tuple[str, ForeignKey] | None:
    """Return a key of another tool, with the section that its counterpart is in; None if no tool has it.

    Other tools have other sections: a key that is not one of this section may be one of another.

    Example:
        >>> section, found = find_foreign_key("sequence-len", "")
        >>> found.key
        'max_seq_length'
        >>> find_foreign_key("max_seq_lenght", "") is None
        True
    """
    name = name.replace("-", "_")
    sections = dict.fromkeys([section, TOP_LEVEL, DATASETS])
    return next(
        ((each, keys[name]) for each in sections if name in (keys := FOREIGN_KEYS.get(each, {}))),
        None,
    )
