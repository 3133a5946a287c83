"""Refuse keys that make no sense where adapters are merged and nothing is trained (`merge_only`)."""

from __future__ import annotations

from dataclasses import fields

from sftkit.config.commands import TrainConfig
from sftkit.config.fields import default_of
from sftkit.config.fms.defaults import FMS_DEFAULTS
from sftkit.config.schema.option_values import FMS
from sftkit.config.words import parse_boolean
from sftkit.errors import ConfigError
from sftkit.storage.model_location import adapter_base

_USED = frozenset(
    {"config", "output_dir", "model_name_or_path", "tokenizer_name_or_path", "adapter_name_or_path", "merge_only"}
    | {"save_dtype", "torch_dtype", "trust_remote_code", "use_peft", "log_level", "dataprocessor", "compat"}
)
_USED_BY_TRAINER = frozenset({"use_cpu", "do_train"})
_EVALUATION = "do_eval"


def check_merge_only(config: TrainConfig) -> None:
    """Refuse a config with `merge_only` that sets what only training uses, or names no adapter.

    Raises:
        ConfigError: with the keys to remove.
    """
    of_fms = FMS_DEFAULTS if config.compat == FMS else {}
    own = [field for field in fields(TrainConfig) if field.name not in {*_USED, "training_arguments"}]
    given = {field.name: (getattr(config, field.name), default_of(field)) for field in own}
    unused = [key for key, (value, default) in given.items() if value != default and value != of_fms.get(key)]
    unused += [
        key
        for key, value in config.training_arguments.items()
        if key not in _USED_BY_TRAINER
        and not (key == _EVALUATION and parse_boolean(value) is False)
        and value != of_fms.get(key)
    ]
    if unused:
        raise ConfigError(f"merge_only trains nothing and reads no data: remove {', '.join(unused)}")
    model = config.model_name_or_path
    if not config.adapter_name_or_path and (model is None or adapter_base(model) is None):
        raise ConfigError("merge_only needs an adapter: set adapter_name_or_path, or an adapter as model_name_or_path")
