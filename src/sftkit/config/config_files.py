"""A config that a run was resolved to, given back as a config: the `config` of a manifest, or the manifest itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

_DEEPEST = 100
_MOST_VALUES = 1_000_000
"""Aliases (`*name`) can make a billion values of a few lines, and lists that hold themselves."""


def read_yaml(text: str) -> Any:
    """Plain data of a YAML document: keys and values, lists, texts, numbers, truth values and nulls.

    Raises:
        yaml.YAMLError: it is not well-formed, names a key twice, or holds anything else; the error knows line and
            column where there is a place.
    """
    try:
        data = yaml.load(text, Loader=_ConfigLoader)
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    check_plain_data(data)
    return data


def read_json(text: str) -> Any:
    """Plain data of a JSON document.

    Raises:
        json.JSONDecodeError: it is not well-formed.
        yaml.YAMLError: it is nested too deep, or holds a number of thousands of digits.
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
    """Look through all of a config file's data.

    Raises:
        yaml.YAMLError: it is nested too deep (or without end), is too much, or holds what no config does.
    """
    left = [(data, 0)]
    count = 0
    while left:
        value, depth = left.pop()
        count += 1
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"nested more than {_DEEPEST} levels deep, or an alias (*) that refers to itself")
        if count > _MOST_VALUES:
            raise yaml.YAMLError(f"more than {_MOST_VALUES:,} values, with what aliases (*) stand for")
        if isinstance(value, dict):
            _check_keys(value)
            left += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list):
            left += [(each, depth + 1) for each in value]
        elif not isinstance(value, (str, int, float, bool, type(None))):
            raise yaml.YAMLError(f"a config holds text, numbers, lists, keys and values, and no {_tag_of(value)}")


def _check_keys(section: dict[Any, Any]) -> None:
    for key in section:
        if not isinstance(key, (str, int, float)):
            shown = "null" if key is None else repr(key)
            raise yaml.YAMLError(f"the key {shown} is no text; put it in quotes")


def _tag_of(value: Any) -> str:
    if isinstance(value, bytes):
        return "!!binary"
    return "!!set" if isinstance(value, set) else type(value).__name__


class _ConfigLoader(yaml.SafeLoader):
    """Safe YAML 1.1 but for its surprises."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # what PyYAML's own constructors raise on values that are not what their tag says
            raise yaml.constructor.ConstructorError(
                None, None, f"a value that cannot be read as {node.tag.rpartition(':')[2]}", node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
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


# What `datasets` say already.
_RESOLVED_INTO_DATASETS = (
    *("config", "data_config_path", "training_data_path", "validation_data_path", "dataset_conversation_field"),
    *("input_field_name", "output_field_name", "data_formatter_template"),
)
_OF_ONE_RUN = ("dry_run", "overwrite")  # leave to replace a data set was given for that run's directory alone
_OF_A_MANIFEST = frozenset({"format_version", "fingerprint"})


def extract_resolved_config(data: Mapping[str, Any]) -> dict[str, Any] | None:
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
