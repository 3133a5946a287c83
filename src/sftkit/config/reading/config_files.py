"""Config files as plain data: reading YAML or JSON, rejecting what a config cannot contain, and escaping `${`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sftkit.config.commands import TrainConfig
from sftkit.config.fields import keys_where
from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.core.error_text import first_line
from sftkit.errors import ConfigError
from sftkit.sample import sample_path

_MAX_DEPTH = 100
_MAX_VALUES = 1_000_000
"""YAML aliases (`*name`) can expand a few lines to a billion values, or make a list contain itself."""

LITERAL_KEYS = frozenset(
    {key for schema in (ProcessorConfig, TrainConfig) for key in keys_where(schema, lambda info: info.literal)}
    | {"template"}
)
"""Keys whose text is a template, in which `${` is text. `template` is a handler argument."""

# `${other.key}`, or one of OmegaConf's own resolvers such as `${oc.env:HOME}`.
_INTERPOLATION = re.compile(r"\$\{(?:[A-Za-z_][\w.\[\]]*|oc\.[a-z_.]+:[^{}]*)\}")


def read_config_file(path: str) -> dict[str, Any]:
    """Read a YAML or JSON config file as plain data.

    Raises:
        ConfigError: The file is missing, unreadable or malformed. The message names line and column if known.
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
        raise ConfigError(f"{path}:{_yaml_problem(error)}") from None
    except yaml.YAMLError as error:
        kind = "JSON" if path.endswith(".json") else "YAML"
        raise ConfigError(f"{path}: not valid {kind}: {first_line(error)}") from None
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a config file must hold keys and values")
    return {str(key): value for key, value in data.items()}


def read_yaml(text: str) -> Any:
    """Read a YAML document: mappings, lists, text, numbers, booleans and nulls.

    Raises:
        yaml.YAMLError: The document is malformed, repeats a key or contains other types. The error has a line and
            column if there is one.

    Example:
        >>> read_yaml("{rate: 1e-5, day: 2024-01-31}")
        {'rate': 1e-05, 'day': '2024-01-31'}
    """
    try:
        data = yaml.load(text, Loader=_ConfigLoader)
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    check_plain_data(data)
    return data


def read_json(text: str) -> Any:
    """Read a JSON document.

    Raises:
        json.JSONDecodeError: The document is malformed.
        yaml.YAMLError: The document is nested too deep, or contains a number with thousands of digits.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    except ValueError as error:
        raise yaml.YAMLError(str(error).split(";")[0]) from None
    check_plain_data(data)
    return data


def check_plain_data(data: Any) -> None:
    """Check the data of a config file, without recursion.

    Raises:
        yaml.YAMLError: The data is nested too deep (or endlessly), too large, or contains a type that configs do not
            have.
    """
    pending = [(data, 0)]
    count = 0
    while pending:
        value, depth = pending.pop()
        count += 1
        if depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {_MAX_DEPTH} levels deep, or an alias (*) that refers to itself")
        if count > _MAX_VALUES:
            raise yaml.YAMLError(f"more than {_MAX_VALUES:,} values after aliases (*) are expanded")
        if isinstance(value, dict):
            _check_keys(value)
            pending += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            pending += [(item, depth + 1) for item in value]
        elif not isinstance(value, (str, int, float, bool, type(None))):
            raise yaml.YAMLError(f"a config cannot contain {_tag_of(value)}; use text, numbers, lists, keys and values")


def _check_keys(section: dict[Any, Any]) -> None:
    for key in section:
        if not isinstance(key, (str, int, float)):
            shown = "null" if key is None else repr(key)
            raise yaml.YAMLError(f"the key {shown} is not text; put it in quotes")


def _tag_of(value: Any) -> str:
    if isinstance(value, bytes):
        return "!!binary"
    return "!!set" if isinstance(value, set) else type(value).__name__


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{mark.line + 1}:{mark.column + 1}: " if mark else " "
    return f"{place}not valid YAML: {error.problem or error.context or 'broken structure'}"


class _ConfigLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but repeated keys are errors, dates are text, and `1e-5` is a number."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # PyYAML's constructors raise these for values that do not match their tag.
            raise yaml.constructor.ConstructorError(
                None, None, f"a value that cannot be read as {node.tag.rpartition(':')[2]}", node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


_ConfigLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_ConfigLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def escape(data: Any, *, literal: bool = False) -> Any:
    """Escape every `${` that is not an interpolation, or all of them if `literal`, so that OmegaConf keeps it."""
    if isinstance(data, Mapping):
        return {key: escape(value, literal=literal or key in LITERAL_KEYS) for key, value in data.items()}
    if isinstance(data, list):
        return [escape(value, literal=literal) for value in data]
    if not isinstance(data, str) or "${" not in data:
        return data

    def escaped(match: re.Match[str]) -> str:
        if not literal and _INTERPOLATION.match(data, match.end(1)):
            return match[0]
        # OmegaConf reads n backslashes before `${` as n // 2 of them, and as an escape if n is odd.
        return match[1] * 2 + "\\${"

    return re.sub(r"(\\*)\$\{", escaped, data)
