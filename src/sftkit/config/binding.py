"""Binding plain data to a config dataclass, collecting all problems instead of stopping at the first."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from sftkit.config.aliases import KEY_ALIASES, REFUSED_KEYS
from sftkit.config.fields import OptionInfo, did_you_mean, is_required, option_info
from sftkit.config.foreign_keys.dataset_keys import FOREIGN_VALUES
from sftkit.config.unknown_keys import unknown_key_message
from sftkit.config.words import is_null_word, parse_boolean
from sftkit.core.plugins import find_plugins
from sftkit.errors import ConfigError

T = TypeVar("T")

_MAX_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Problem:
    """One problem of a config."""

    path: str
    """Dotted path of the key."""
    message: str
    """One sentence that names the key."""
    missing: bool = False
    """Whether a required key is missing."""


class _InvalidError(Exception):
    """A value is invalid, and its problem has been recorded."""


def bind_config(cls: type[T], data: Mapping[str, Any], problems: list[Problem], *, section: str = "") -> T | None:
    """Create a config dataclass from plain data.

    Numbers and booleans may be given as text ("0.1", "False"), as command lines do.

    Args:
        cls: The config dataclass.
        data: Keys and values. Aliases of keys are accepted.
        problems: Receives the problems.
        section: Dotted path of the data within the config, for messages.

    Returns:
        The config, or None if there are problems.

    Example:
        >>> from sftkit.config.schema.data_config import SplitConfig
        >>> problems = []
        >>> bind_config(SplitConfig, {"train": "0.9"}, problems)
        SplitConfig(train=0.9, validation=None)
        >>> bind_config(SplitConfig, {"trian": 0.9}, problems), problems[0].message
        (None, "unknown key 'trian' (did you mean 'train'?)")
    """
    try:
        return typing.cast(T, _bind_dataclass(cls, data, section, problems))
    except _InvalidError:
        return None


def field_types(cls: type[Any]) -> Mapping[str, Any]:
    """Return the resolved annotation of every field of a config dataclass."""
    return _field_types(typing.cast(Hashable, cls))


@cache  # a manifest may have a hundred thousand sources
def _field_types(cls: Hashable) -> Mapping[str, Any]:
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(typing.cast(type[Any], cls))]
    return types.MappingProxyType({name: hints[name] for name in names})


def section_aliases(section: str) -> Mapping[str, str]:
    """Return the aliases of keys in a section; list indices are ignored (`datasets[2]`)."""
    return KEY_ALIASES.get(section.split("[")[0], {})


def _without_indices(section: str) -> str:
    return re.sub(r"\[\d+\]", "", section)


def describe_value(value: Any) -> str:
    """Describe a value for an error message, shortened if it is long.

    Example:
        >>> describe_value("many"), describe_value([1, 2]), describe_value(None)
        ("'many'", 'a list', 'nothing')
    """
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def _bind_dataclass(cls: type[Any], data: Any, section: str, problems: list[Problem]) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if isinstance(data, (str, list, tuple)):
        data = next(({name: data} for name, field in fields.items() if option_info(field).short_form), data)
    if not isinstance(data, Mapping):
        hint = FOREIGN_VALUES.get(_without_indices(section), "")
        place = section or "the config"
        _fail(problems, section, f"{place} must hold keys and values, not {describe_value(data)}{hint}")
    hints = field_types(cls)
    aliases = section_aliases(section)
    count_before = len(problems)
    values: dict[str, Any] = {}
    for given, value in data.items():
        name = _canonical_name(str(given), fields, aliases)
        path = f"{section}.{given}" if section else str(given)
        refusal = REFUSED_KEYS.get(section.split("[")[0], {}).get(name)
        if name not in fields and refusal is not None:
            _refuse(problems, path, refusal)
        elif name not in fields:
            known = [*fields, *(alias for alias, key in aliases.items() if key in fields)]
            hint, place = did_you_mean(str(given), known), _without_indices(section)
            message = unknown_key_message(f"key {path!r}", str(given), place, tuple(fields), hint)
            problems.append(Problem(path, message))
        elif name in values:
            problems.append(Problem(path, f"{path!r} and {name!r} are the same key; set only one of them"))
        else:
            values[name] = _bind_field(hints[name], fields[name], value, path, problems)
    for name, field in fields.items():
        if name not in values and is_required(field):
            path = f"{section}.{name}" if section else name
            problems.append(Problem(path, f"missing key {path!r}: {option_info(field).help}", missing=True))
    if len(problems) > count_before:
        raise _InvalidError
    return cls(**values)


def _canonical_name(given: str, fields: Mapping[str, Any], aliases: Mapping[str, str]) -> str:
    for name in (given, given.replace("-", "_")):
        if name in fields:
            return name
        if name in aliases:
            return aliases[name]
    return given


def _bind_field(annotation: Any, field: dataclasses.Field[Any], value: Any, path: str, problems: list[Problem]) -> Any:
    info = option_info(field)
    if info.secret and not isinstance(value, Mapping | None):  # the value may be a secret with a typo
        problems.append(Problem(path, f"{path} must hold keys and values, such as {{key: ..., secret: ...}}"))
        return None
    try:
        result = _convert(annotation, value, path, problems)
    except _InvalidError:
        return None
    if not info.choices or result is None:
        return result
    if isinstance(result, tuple):  # of choices; none has a comma
        parts = [part.strip() for each in result for part in each.split(",") if part.strip()]
        return tuple(dict.fromkeys(_choose(part, info, path, problems) for part in parts))
    return _choose(result, info, path, problems)


def _choose(value: Any, info: OptionInfo, path: str, problems: list[Problem]) -> Any:
    """Return the choice that a value names."""
    if value in info.choices:
        return value
    spelling = str(value).lower()  # YAML and shells write `packing: False` for `packing: none`
    choice = info.words.get(spelling, spelling)
    if choice in info.choices:
        return choice
    if choice in info.refused:
        _refuse(problems, path, info.refused[choice])
        return None
    plugin_names = _plugin_names(info.plugins, path, problems)
    if value in plugin_names:
        return value
    allowed = ", ".join([*info.choices, *plugin_names])
    problems.append(Problem(path, f"{path} must be one of {allowed}, not {value!r}"))
    return value


def _refuse(problems: list[Problem], path: str, reason: str) -> None:
    """Record why a key or a value of another tool is refused; once, if it takes several keys there."""
    if not any(problem.message.endswith(reason) for problem in problems):
        problems.append(Problem(path, f"{path}: {reason}"))


def _plugin_names(group: str, path: str, problems: list[Problem]) -> list[str]:
    """Return the names that installed packages register for a field; called only for values that are not built in."""
    try:
        return list(find_plugins(group)) if group else []
    except ConfigError as error:
        problems += [Problem(path, problem) for problem in error.problems]
        return []


def _convert(annotation: Any, value: Any, path: str, problems: list[Problem]) -> Any:
    """Convert a value to an annotation.

    Raises:
        _InvalidError: The value is invalid; its problem has been recorded.
    """
    if annotation is Any:
        return value
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        [inner] = [argument for argument in arguments if argument is not type(None)]
        if value is None or (inner is not str and is_null_word(value)):
            return None
        return _convert(inner, value, path, problems)
    if dataclasses.is_dataclass(annotation):
        return _bind_dataclass(typing.cast(type[Any], annotation), value, path, problems)
    if origin is tuple:
        return _convert_list(arguments[0], value, path, problems)
    if origin is not None and issubclass(origin, Mapping):
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            _fail(problems, path, f"{path} must hold keys and values, not {describe_value(value)}")
        return {str(key): _convert(arguments[1], item, f"{path}.{key}", problems) for key, item in value.items()}
    return _convert_scalar(annotation, value, path, problems)


def _convert_list(inner: Any, value: Any, path: str, problems: list[Problem]) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        if inner is str and isinstance(value, (str, int, float)):
            return (value if isinstance(value, str) else str(value),)
        _fail(problems, path, f"{path} must be a list, not {describe_value(value)}")
    count_before = len(problems)
    items = []
    for index, item in enumerate(value):
        try:
            items.append(_convert(inner, item, f"{path}[{index}]", problems))
        except _InvalidError:
            continue
    if len(problems) > count_before:
        raise _InvalidError
    return tuple(items)


def _convert_scalar(kind: Any, value: Any, path: str, problems: list[Problem]) -> Any:
    text = value.strip() if isinstance(value, str) else value
    if kind is bool:
        boolean = parse_boolean(value)
        if boolean is not None:
            return boolean
        _fail(problems, path, f"{path} must be true or false, not {describe_value(value)}")
    if kind is int and not isinstance(value, bool):
        number = _number(text)
        if number is not None and number == int(number):
            return int(number)
        _fail(problems, path, f"{path} must be a whole number, not {describe_value(value)}")
    if kind is float and not isinstance(value, bool):
        number = _number(text)
        if number is not None:
            return number
        _fail(problems, path, f"{path} must be a number, not {describe_value(value)}")
    if kind is str and isinstance(value, (str, int, float)):
        return value if isinstance(value, str) else str(value)
    expected = {str: "text", int: "a whole number", float: "a number"}.get(kind, str(kind))
    return _fail(problems, path, f"{path} must be {expected}, not {describe_value(value)}")


def _number(value: Any) -> float | None:
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.lstrip("+-").isdecimal():
        return int(value)  # float() would round large numbers
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _fail(problems: list[Problem], path: str, message: str) -> typing.NoReturn:
    problems.append(Problem(path, message))
    raise _InvalidError
