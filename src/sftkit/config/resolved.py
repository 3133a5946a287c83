"""A config that a run was resolved to, given back as a config: the `config` of a manifest, or the manifest itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What `datasets` say already.
_RESOLVED_INTO_DATASETS = (
    *("config", "data_config_path", "training_data_path", "validation_data_path", "dataset_conversation_field"),
    *("input_field_name", "output_field_name", "data_formatter_template"),
)
_OF_ONE_RUN = ("dry_run", "overwrite")  # leave to replace a data set was given for that run's directory alone
_OF_A_MANIFEST = frozenset({"format_version", "fingerprint"})


def resolved_config(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a config file says that holds a resolved config, or a manifest; None for a config that someone wrote.

    A resolved config is known by its key `config`, which no file says of itself. Nothing in it refers to anything any
    more: a `${` in it is text.
    """
    config = data.get("config")
    if set(data) >= _OF_A_MANIFEST and isinstance(config, Mapping):
        data = {str(key): value for key, value in config.items()}
    if "config" not in data or not data.get("datasets"):
        return None
    return {key: value for key, value in data.items() if key not in (*_RESOLVED_INTO_DATASETS, *_OF_ONE_RUN)}
