"""Loading a command's configuration from Python values, merged with config files like a command line."""

from __future__ import annotations

import dataclasses
import numbers
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from omegaconf import DictConfig
from omegaconf.errors import UnsupportedValueType

from sftkit.config.binding import Problem, bind_config, describe_value, field_types
from sftkit.config.fields import default_of, is_required
from sftkit.config.fms.defaults import with_compat_defaults
from sftkit.config.reading.command_line import locate, unknown_key
from sftkit.config.reading.config_files import escape
from sftkit.config.reading.merging import EXTRA_KEYS_FIELD, bind_merged, merge_files, set_value
from sftkit.errors import ConfigError

T = TypeVar("T")


def load_values(
    schema: type[T],
    config: object = None,
    values: Mapping[str, Any] = MappingProxyType({}),
    *,
    extra_keys: Mapping[str, Any] | None = None,
    check_extra: Callable[[Mapping[str, Any]], list[str]] = lambda _: [],
) -> T:
    """Load a command's configuration from Python values, merged as `load_config` merges files and a command line.

    Args:
        schema: The command's config dataclass.
        config: An instance of it, the path of a config file, or several paths; later files take precedence.
        values: Keys and their values, which take precedence over `config`. A key may be dotted
            (`dataprocessor.seed`). A mapping is merged into what `config` holds, anything else replaces it. Text is
            literal: `${` refers to nothing.
        extra_keys: As for `load_config`.
        check_extra: As for `load_config`.

    Raises:
        ConfigError: The configuration is invalid. The error lists all problems.

    Example:
        >>> from sftkit.config.commands import PreprocessConfig
        >>> load_values(PreprocessConfig, None, {"output_dir": "shards", "max_seq_length": 4096}).max_seq_length
        4096
    """
    extra_keys = extra_keys or {}
    values = {key: _to_plain(value) for key, value in values.items()}
    data_config = values.get("data_config_path")
    if isinstance(config, schema):
        given = _changed_values(config)
        if data_config is None and not given.get("datasets"):
            data_config = given.get("data_config_path")
        if not values and data_config is None:
            problems: list[Problem] = []
            given = with_compat_defaults(given, field_types(schema), given.get(EXTRA_KEYS_FIELD) or {})
            bound = bind_config(schema, given, problems)
            return _checked(bound, problems, [], check_extra(given.get(EXTRA_KEYS_FIELD) or {}))
        merged = merge_files((), data_config, given)
    else:
        paths = _config_paths(config, schema)
        values |= {"config": paths} if paths else {}
        merged = merge_files(paths, data_config)
    unknown = _set_values(merged.tree, values, schema, extra_keys)
    located = [found[0] for found in (locate(key, schema, extra_keys) for key in values) if found]
    bound, problems, extra = bind_merged(schema, merged, extra_keys, located)
    return _checked(bound, problems, unknown, check_extra(extra))


def _checked(config: T | None, problems: list[Problem], before: list[str], after: list[str]) -> T:
    messages = [*before, *(problem.message for problem in problems), *after]
    if config is None or messages:
        raise ConfigError(messages)
    return config


def _set_values(
    merged: DictConfig, values: Mapping[str, Any], schema: type[Any], extra_keys: Mapping[str, Any]
) -> list[str]:
    """Set values in the merged config; returns a message for each that cannot be set."""
    problems: list[str] = []
    for key, value in values.items():
        located = locate(key, schema, extra_keys)
        if located is None:
            problems.append(unknown_key(key, f"key {key!r}", schema, extra_keys).message)
            continue
        try:
            if not set_value(merged, located[0], escape(value, literal=True)):
                problems.append(f"{key} cannot be set: the config has no such entry")
        except UnsupportedValueType:
            problems.append(f"{key} cannot be {describe_value(value)}: give text, numbers, lists, or keys and values")
    return problems


def _changed_values(config: Any) -> dict[str, Any]:
    """Return the fields of a config object that differ from their defaults, as plain values."""
    return {
        field.name: _to_plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if is_required(field) or getattr(config, field.name) != default_of(field)
    }


def _to_plain(value: Any) -> Any:
    """Convert a Python value to what a config file would hold: dataclasses to mappings, paths to text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, numbers.Integral):  # NumPy integers
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _config_paths(config: object, schema: type[Any]) -> list[str]:
    """Return the paths of config files that were passed instead of a config object."""
    if config is None:
        return []
    paths = [config] if isinstance(config, (str, os.PathLike)) else config
    if isinstance(paths, (list, tuple)) and all(isinstance(path, (str, os.PathLike)) for path in paths):
        return [os.fspath(path) for path in paths]
    raise ConfigError(
        f"`config` must be a {schema.__name__}, the path of a config file or a list of paths, "
        f"not {describe_value(config)}"
    )
