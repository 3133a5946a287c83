"""Defaults < data config < `--config` files < command line, merged by OmegaConf and bound to a dataclass."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sftkit.config.aliases import PATH_ALIASES
from sftkit.config.binding import Problem, bind_config, field_types, section_aliases
from sftkit.config.command_line import Override, parse_command_line, strip_optional
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.config_files import extract_resolved_config, read_json, read_yaml
from sftkit.config.fields import is_literal, panel_of
from sftkit.config.schema import ProcessorConfig
from sftkit.core.error_text import first_line
from sftkit.errors import ConfigError, UsageError
from sftkit.sample import sample_path

T = TypeVar("T")

# Keys whose text is a template: a `${` in them is text. `template` is an argument of handlers.
_LITERAL_KEYS = frozenset(
    field.name for schema in (ProcessorConfig, TrainConfig) for field in dataclasses.fields(schema) if is_literal(field)
) | {"template"}
# What is an interpolation: `${other.key}`, or one of OmegaConf's own resolvers, `${oc.env:HOME}`.
_REFERENCE = re.compile(r"\$\{(?:[A-Za-z_][\w.\[\]]*|oc\.[a-z_.]+:[^{}]*)\}")
_OF_THE_ROWS = ("Data", "Rows")
_OF_THE_RUN = frozenset(
    field.name
    for schema in (PreprocessConfig, InspectConfig, TrainConfig)
    for field in dataclasses.fields(schema)
    if panel_of(field) not in _OF_THE_ROWS
) - {"model_name_or_path", "tokenizer_name_or_path", "add_special_tokens"}
_EXTRA_KEYS_FIELD = "training_arguments"


def load_config(
    schema: type[T],
    argv: Sequence[str],
    *,
    first_word: str | None = None,
    extra_keys: Mapping[str, Any] | None = None,
    check_extra: Callable[[Mapping[str, Any]], list[str]] = lambda _: [],
) -> T:
    """Load a command's configuration from its command line and the files that it names.

    Args:
        schema: the command's config dataclass.
        argv: the arguments after the command's name.
        first_word: the key a bare first argument stands for (`inspect-shards DIR`).
        extra_keys: further top-level keys and their annotations; what is given of them ends in
            `training_arguments`.
        check_extra: what is wrong with the values of those, one sentence each.

    Raises:
        UsageError: the command line is at fault (alone or with a file).
        ConfigError: a file is at fault. Both hold every problem found, not the first.
    """
    extra_keys = extra_keys or {}
    line = parse_command_line(argv, schema, extra_keys)
    usage = [problem.message for problem in line.problems]
    overrides = list(line.overrides)
    for position, word in enumerate(line.words):
        if position == 0 and first_word:
            overrides.insert(0, Override(first_word, str, word))
        else:
            usage.append(f"unexpected argument {word!r}; options are written --key value or key=value")

    merged = merge_files(_config_paths(overrides), _last(overrides, "data_config_path"))
    usage += _apply(overrides, merged)
    config, problems, extra = bind_merged(schema, merged, extra_keys)
    typed = {override.path for override in overrides}
    extra_typed = {path.split(".")[0] for path in typed} & set(extra_keys)
    blamed = next(iter(extra_typed), _EXTRA_KEYS_FIELD)
    problems += [Problem(blamed, message) for message in check_extra(extra)]
    messages = [*usage, *(problem.message for problem in problems)]
    if usage or any(_is_from_command_line(problem, typed) for problem in problems):
        raise UsageError(messages)
    if config is None or messages:
        raise ConfigError(messages)
    return config


def read_config_file(path: str) -> dict[str, Any]:
    """A YAML or JSON config file as plain data.

    Raises:
        ConfigError: the file is missing, unreadable, or not well-formed; then line and column are named.
    """
    try:
        text = Path(sample_path(path)).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a config file: {error}") from None
    try:
        data = read_json(text) if path.endswith(".json") else read_yaml(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}:{_yaml_place(error)}") from None
    except yaml.YAMLError as error:
        kind = "JSON" if path.endswith(".json") else "YAML"
        raise ConfigError(f"{path}: not valid {kind}: {first_line(error)}") from None
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a config file must hold keys and values")
    return {str(key): value for key, value in data.items()}


def bind_merged(
    schema: type[T], merged: DictConfig, extra_keys: Mapping[str, Any]
) -> tuple[T | None, list[Problem], Mapping[str, Any]]:
    """Bind a merged config to its dataclass.

    Returns:
        the config (None when it is invalid), its problems, and the values of its extra keys.

    Raises:
        ConfigError: a value refers to a key that does not exist.
    """
    try:
        data = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a config"
        raise ConfigError(f"{key} refers to something that is not there: {first_line(error)}") from None
    assert isinstance(data, dict)
    plain = _gather_extra_keys({str(key): value for key, value in data.items()}, schema, extra_keys)
    problems: list[Problem] = []
    return bind_config(schema, plain, problems), problems, plain.get(_EXTRA_KEYS_FIELD) or {}


def merge_files(
    paths: Sequence[str], data_config: str | None, given: Mapping[str, Any] = MappingProxyType({})
) -> DictConfig:
    """Merge a data config, config files in order, and then the values of a config object.

    Args:
        paths: the config files.
        data_config: path of the data config; when None, the config files may name one.
        given: plain values of a config object, which are final: neither their text nor their paths are read.

    Raises:
        ConfigError: a file cannot be read or merged.
    """
    files: list[tuple[str, dict[str, Any]]] = []
    resolved: set[str] = set()
    merged: dict[str, Any] = {}
    for path in paths:
        written = read_config_file(path)
        data = extract_resolved_config(written)
        resolved |= set() if data is None else {path}
        files.append((path, _unalias(written) if data is None else data))
        merged |= files[-1][1]
    if given:
        files.append(("the config object", dict(given)))
        resolved.add("the config object")
    elif data_config is None:
        data_config = merged.get("data_config_path")
    if data_config is not None:
        data = _unalias(read_config_file(str(data_config)))
        _check_data_config(str(data_config), data)
        twice = [path for path, other in files if "datasets" in other and "datasets" in data]
        if twice:
            raise ConfigError(f"`datasets` stands in {twice[0]} and in {data_config}; give the data config once")
        files.insert(0, (str(data_config), data))
    try:
        escaped = (escape(data, literal=path in resolved) for path, data in files)
        result = OmegaConf.merge(*map(OmegaConf.create, escaped), OmegaConf.create({}))
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config files cannot be merged: {first_line(error)}") from None
    assert isinstance(result, DictConfig)
    return result


def _check_data_config(path: str, data: Mapping[str, Any]) -> None:
    """A data config may come from a stranger: it says what the rows are, not where and how a run writes."""
    foreign = next((key for key in data if key in _OF_THE_RUN), None)
    if foreign is not None:
        raise ConfigError(
            f"{path}: a data config cannot say {foreign}; give it as an option, or in a file for --config"
        )


def _last(overrides: Sequence[Override], path: str) -> str | None:
    return next((override.text for override in reversed(overrides) if override.path == path), None)


def _config_paths(overrides: Sequence[Override]) -> list[str]:
    return [path for override in overrides if override.path == "config" for path in _words(override.text)]


def _unalias(data: Mapping[str, Any]) -> dict[str, Any]:
    """Top-level other names -> ours, so that files and command line meet under one key."""
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


def _apply(overrides: Sequence[Override], merged: DictConfig) -> list[str]:
    """Write the command line's settings into the merged config; what cannot be written is returned in words."""
    problems: list[str] = []
    repeated: dict[str, list[Any]] = {}
    for override in overrides:
        value = _value(override)
        if isinstance(value, list):
            repeated.setdefault(override.path, []).extend(value)
            value = repeated[override.path]
        head = override.path.split("[")[0]
        try:
            if head != override.path and OmegaConf.select(merged, head) is None:
                raise IndexError  # OmegaConf would make keys and values of it
            OmegaConf.update(merged, override.path, value, force_add=True)
        except (OmegaConfBaseException, IndexError, AttributeError, TypeError, AssertionError):
            problems.append(f"{override.path} cannot be set: the config has no such entry")
    return problems


def _value(override: Override) -> Any:
    """The text of an option as a value; text stays text, and the binding turns "8" and "False" into what is meant."""
    annotation = strip_optional(override.annotation)
    key = override.path.rsplit(".", 1)[-1]
    if annotation == tuple[str, ...]:
        return escape({key: _words(override.text)})[key]
    if annotation in (str, int, float, bool) or isinstance(annotation, str):
        return escape({key: override.text})[key]
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={override.text}"]))
    except (OmegaConfBaseException, yaml.YAMLError):
        return override.text
    assert isinstance(parsed, dict)
    return parsed["value"]


def _words(text: str) -> list[str]:
    """`[a, b]` is a list, anything else one word (paths may hold commas and spaces)."""
    if text.startswith("[") and text.endswith("]"):
        parsed = yaml.safe_load(text)
        return [str(item) for item in parsed]
    return [text]


def escape(data: Any, *, literal: bool = False) -> Any:
    """Protect every `${` from interpolation that is template text, or no reference to another key."""
    if isinstance(data, Mapping):
        return {key: escape(value, literal=literal or key in _LITERAL_KEYS) for key, value in data.items()}
    if isinstance(data, list):
        return [escape(value, literal=literal) for value in data]
    if not isinstance(data, str) or "${" not in data:
        return data

    def protected(match: re.Match[str]) -> str:
        if not literal and _REFERENCE.match(data, match.end(1)):
            return match[0]
        # OmegaConf: n backslashes before `${` stand for n // 2 of them, an odd number for no interpolation.
        return match[1] * 2 + "\\${"

    return re.sub(r"(\\*)\$\{", protected, data)


def _gather_extra_keys(data: dict[str, Any], schema: type[Any], extra_keys: Mapping[str, Any]) -> dict[str, Any]:
    fields = field_types(schema)
    extra = {key: value for key, value in data.items() if key not in fields and key in extra_keys}
    if not extra:
        return data
    rest = {key: value for key, value in data.items() if key not in extra}
    return rest | {_EXTRA_KEYS_FIELD: {**(rest.get(_EXTRA_KEYS_FIELD) or {}), **extra}}


def _is_from_command_line(problem: Problem, typed: set[str]) -> bool:
    """Whether the command line is at fault: it gave the key, or left out one that must be given there."""
    if problem.missing and "." not in problem.path:
        return True
    return any(problem.path == key or problem.path.startswith((f"{key}.", f"{key}[")) for key in typed)


def _yaml_place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{mark.line + 1}:{mark.column + 1}: " if mark else " "
    return f"{place}not valid YAML: {error.problem or error.context or 'broken structure'}"
