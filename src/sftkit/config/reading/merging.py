"""Merging config files with OmegaConf and binding the result to a config dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, UnsupportedValueType

from sftkit.config.aliases import PATH_ALIASES
from sftkit.config.binding import Problem, bind_config, field_types, section_aliases
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.fields import keys_where
from sftkit.config.fms.defaults import with_compat_defaults
from sftkit.config.reading.config_files import LITERAL_KEYS, escape, read_config_file
from sftkit.config.reading.interpolated import mark_interpolated
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.option_values import ONCE
from sftkit.config.schema.shared_options import DataOptions
from sftkit.config.untrusted import (
    DATA_CONFIG,
    MANIFEST,
    UntrustedFile,
    interpolation_problem,
    reference_problems,
    source_problems,
)
from sftkit.core.error_text import first_line
from sftkit.errors import ConfigError
from sftkit.sample import sample_path

T = TypeVar("T")

EXTRA_KEYS_FIELD = "training_arguments"
"""Key that receives extra top-level keys: those that are not fields of the config dataclass."""

_PREPROCESS_KEYS = {field.name for field in dataclasses.fields(PreprocessConfig)}
_CONFIG_OBJECT = "the config object"
_COMMAND_KEYS = {
    field.name for schema in (PreprocessConfig, InspectConfig, TrainConfig) for field in dataclasses.fields(schema)
}
_NOT_IN_DATA_CONFIGS = _COMMAND_KEYS - set(keys_where(DataOptions, lambda info: not info.trusted_only))
_NOT_REPEATED = keys_where(PreprocessConfig, lambda info: info.shorthand_for or info.per_run)
_NOT_REPEATED_FROM_MANIFESTS = {
    *_NOT_REPEATED,
    *keys_where(PreprocessConfig, lambda info: info.trusted_only or info.secret),
}
_SHUFFLE_MAY_BE_OFF = 4
"""The `format_version` since which `shuffle: false` in a manifest is what the user set, and not the default."""
_RENDERED_PER_TURN = 5
"""The `format_version` since which `render` is `auto` where a config does not set it."""
_MANIFEST_KEYS = frozenset({"format_version", "fingerprint"})


@dataclass(frozen=True)
class MergedConfig:
    """Config files, merged."""

    tree: DictConfig
    """Their content, unresolved."""
    untrusted: tuple[UntrustedFile, ...]
    """Those among them that may come from anyone."""


def merge_files(
    paths: Sequence[str], data_config: str | None, given: Mapping[str, Any] = MappingProxyType({})
) -> MergedConfig:
    """Merge a data config, config files and the values of a config object; later ones take precedence.

    Args:
        paths: The config files, in order.
        data_config: Path of the data config. If None, the config files may name one.
        given: Plain values of a config object. They are final: `${` in them is text, and they name no further files.

    Raises:
        ConfigError: A file cannot be read or merged.
    """
    files: list[tuple[str, dict[str, Any]]] = []
    resolved: set[str] = set()
    kinds: dict[str, str] = {}
    merged: dict[str, Any] = {}
    for path in paths:
        content = read_config_file(path)
        data = extract_resolved_config(path, content)
        resolved |= set() if data is None else {path}
        kinds |= {path: MANIFEST} if is_manifest(content) else {}
        files.append((path, _apply_aliases(content) if data is None else data))
        merged |= files[-1][1]
    if given:
        files.append((_CONFIG_OBJECT, dict(given)))
        resolved.add(_CONFIG_OBJECT)
    elif data_config is None:
        data_config = merged.get("data_config_path")
    if data_config is not None:
        data = _apply_aliases(read_config_file(str(data_config)))
        _check_data_config(str(data_config), data)
        kinds[str(data_config)] = DATA_CONFIG
        twice = [path for path, other in files if "datasets" in other and "datasets" in data]
        if twice:
            raise ConfigError(f"`datasets` is set in {twice[0]} and in {data_config}; set it in only one of them")
        files.insert(0, (str(data_config), data))
    try:
        escaped = [escape(data, literal=path in resolved) for path, data in files]
        result = OmegaConf.merge(*map(OmegaConf.create, escaped), OmegaConf.create({}))
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config files cannot be merged: {first_line(error)}") from None
    assert isinstance(result, DictConfig)
    contents = zip(files, escaped, strict=True)
    untrusted = [UntrustedFile(path, kinds[path], content) for (path, _), content in contents if path in kinds]
    return MergedConfig(result, tuple(untrusted))


def bind_merged(
    schema: type[T], merged: MergedConfig, extra_keys: Mapping[str, Any], overridden: Collection[str]
) -> tuple[T | None, list[Problem], Mapping[str, Any]]:
    """Bind a merged config to its dataclass.

    Args:
        schema: The config dataclass.
        merged: The config files, with what the user set in addition.
        extra_keys: More top-level keys and their annotations.
        overridden: Dotted paths of the keys that the user set in addition.

    Returns:
        The config (None if it is invalid), its problems, and the values of its extra keys.

    Raises:
        ConfigError: A value refers to a key that does not exist, or an untrusted file has what it cannot have.
    """
    raw = OmegaConf.to_container(merged.tree)
    assert isinstance(raw, dict)
    forbidden = [each for file in merged.untrusted for each in reference_problems(file, raw)]
    if forbidden:
        raise ConfigError(forbidden)
    try:
        data = OmegaConf.to_container(merged.tree, resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a config"
        raise ConfigError(f"{key} refers to a key or variable that cannot be found: {first_line(error)}") from None
    assert isinstance(data, dict)
    forbidden = [
        each for file in merged.untrusted for each in source_problems(file, raw, data, overridden, LITERAL_KEYS)
    ]
    if forbidden:
        raise ConfigError(forbidden)
    marked = mark_interpolated(raw, data, raw)
    plain = _with_compat_defaults({str(key): value for key, value in marked.items()}, schema, extra_keys)
    plain = _gather_extra_keys(plain, schema, extra_keys)
    problems: list[Problem] = []
    return bind_config(schema, plain, problems), problems, plain.get(EXTRA_KEYS_FIELD) or {}


def extract_resolved_config(path: str, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the config to repeat from a manifest or a resolved config; None for a config that a user wrote.

    A resolved config is recognized by its key `config`, which users cannot set in a file. Its values are final: `${`
    in them is text. A manifest may come from anyone: it says what rows are, and nothing else.

    Args:
        path: The file, for error messages.
        data: Its content.

    Raises:
        ConfigError: The file is a manifest whose config cannot be repeated.
    """
    if is_manifest(data):
        return _repeated_from_manifest(path, data.get("config"), data.get("format_version"))
    if "config" not in data or not data.get("datasets"):
        return None
    return {key: value for key, value in data.items() if key not in _NOT_REPEATED}


def is_manifest(data: Mapping[str, Any]) -> bool:
    """Whether the content of a config file is that of a manifest, whatever its name."""
    return set(data) >= _MANIFEST_KEYS


def config_folders(paths: Sequence[str], data_config: str | None) -> list[Path]:
    """Return the folders of the files that may name functions: the data config, and config files of the user.

    Raises:
        ConfigError: A file cannot be read.
    """
    named = [path for path in paths if not is_manifest(read_config_file(path))]
    files = [*named, *([] if data_config is None else [data_config])]
    return [Path(sample_path(file)).expanduser().absolute().parent for file in files]


def _repeated_from_manifest(path: str, config: Any, version: Any) -> dict[str, Any]:
    if not isinstance(config, Mapping) or not isinstance(config.get("datasets"), list) or not config["datasets"]:
        raise ConfigError(f"{path}: the config in this manifest has no `datasets`, so its run cannot be repeated")
    unknown = next((key for key in config if key not in _PREPROCESS_KEYS), None)
    if unknown is not None:
        raise ConfigError(
            f"{path}: the config in this manifest has the key {unknown!r}, which this version does not repeat; use a "
            "--config file of your own"
        )
    repeated = {str(key): value for key, value in config.items() if key not in _NOT_REPEATED_FROM_MANIFESTS}
    if isinstance(version, int) and version < _RENDERED_PER_TURN:
        repeated.setdefault("render", ONCE)
    may_be_off = not isinstance(version, int) or version >= _SHUFFLE_MAY_BE_OFF
    repeated["datasets"] = [
        _repeated_dataset(dataset, shuffle_may_be_off=may_be_off) if isinstance(dataset, Mapping) else dataset
        for dataset in config["datasets"]
    ]
    return repeated


def _repeated_dataset(dataset: Mapping[str, Any], *, shuffle_may_be_off: bool) -> dict[str, Any]:
    left_out = set(keys_where(DatasetConfig, lambda info: info.secret))
    if not shuffle_may_be_off and dataset.get("shuffle") is not True:
        left_out.add("shuffle")
    return {key: value for key, value in dataset.items() if key not in left_out}


def set_value(merged: DictConfig, path: str, value: Any) -> bool:
    """Set a value in a merged config.

    Args:
        merged: The config to change.
        path: Dotted path, with list indices in brackets.
        value: Plain data, already escaped.

    Returns:
        Whether the path exists, apart from its last key.

    Raises:
        UnsupportedValueType: The value is not plain data.
    """
    head = path.split("[")[0]
    try:
        if head != path and OmegaConf.select(merged, head) is None:
            return False  # OmegaConf would create a mapping in place of the list
        OmegaConf.update(merged, path, value, force_add=True)
    except UnsupportedValueType:
        raise
    except (OmegaConfBaseException, IndexError, AttributeError, TypeError, AssertionError):
        return False
    return True


def _check_data_config(path: str, data: Mapping[str, Any]) -> None:
    """Reject keys of a data config that control the run: the file may come from an untrusted source."""
    key = next((key for key in data if key in _NOT_IN_DATA_CONFIGS), None)
    if key is not None:
        raise ConfigError(f"{path}: a data config cannot set {key}; set it as an option or in a --config file")
    problem = interpolation_problem(path, data, LITERAL_KEYS)
    if problem is not None:
        raise ConfigError(problem)


def _apply_aliases(data: Mapping[str, Any]) -> dict[str, Any]:
    """Rename top-level aliases to their keys, so that values of files and of the command line meet under one key."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        name = key.replace("-", "_") if "-" in key else key
        name = section_aliases("").get(name, name)
        section, _, inner = PATH_ALIASES.get(name, "").partition(".")
        if inner:
            result.setdefault(section, {})
            result[section] = {**result[section], inner: value}
        elif isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = {**result[name], **value}
        else:
            result[name] = value
    return result


def _with_compat_defaults(data: Mapping[str, Any], schema: type[Any], extra_keys: Mapping[str, Any]) -> dict[str, Any]:
    extra = data.get(EXTRA_KEYS_FIELD)
    return with_compat_defaults(data, {*field_types(schema), *extra_keys}, extra if isinstance(extra, Mapping) else {})


def _gather_extra_keys(data: dict[str, Any], schema: type[Any], extra_keys: Mapping[str, Any]) -> dict[str, Any]:
    """Move extra top-level keys into `training_arguments`."""
    fields = field_types(schema)
    extra = {key: value for key, value in data.items() if key not in fields and key in extra_keys}
    if not extra:
        return data
    rest = {key: value for key, value in data.items() if key not in extra}
    return rest | {EXTRA_KEYS_FIELD: {**(rest.get(EXTRA_KEYS_FIELD) or {}), **extra}}
