"""Plain data -> config dataclass, collecting everything that is wrong on the way."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sftkit.config.aliases import KEY_ALIASES
from sftkit.config.fields import (
    FALSE_WORDS,
    TRUE_WORDS,
    choices_of,
    did_you_mean,
    help_of,
    is_required,
    plugins_of,
    words_of,
)
from sftkit.core.plugins import find_plugins
from sftkit.errors import ConfigError

T = TypeVar("T")

_TRUE = frozenset(TRUE_WORDS)
_FALSE = frozenset(FALSE_WORDS)
_NULL = frozenset({"null", "none", "~", ""})


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config: the dotted key it concerns, and the sentence that says so."""

    path: str
    message: str
    missing: bool = False


class _InvalidError(Exception):
    """A value could not be read; its problem has been recorded."""


def bind_config(cls: type[T], data: Mapping[str, Any], problems: list[Problem], *, section: str = "") -> T | None:
    """Make a `cls` from plain data; whatever is wrong is appended to `problems` and gives `None`.

    Strings are accepted where a number or a boolean is meant ("0.1", "False"), as command lines give them.
    """
    try:
        return typing.cast(T, _bind_dataclass(cls, data, section, problems))
    except _InvalidError:
        return None


def field_types(cls: type[Any]) -> dict[str, Any]:
    """The resolved annotation of every field of a config dataclass."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def section_aliases(section: str) -> Mapping[str, str]:
    """The other names accepted in a section ("datasets[2]" reads as "datasets")."""
    return KEY_ALIASES.get(section.split("[")[0], {})


def _bind_dataclass(cls: type[Any], data: Any, section: str, problems: list[Problem]) -> Any:
    if not isinstance(data, Mapping):
        _fail(problems, section, f"{section or 'the config'} must hold keys and values, not {describe_value(data)}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = field_types(cls)
    aliases = section_aliases(section)
    before = len(problems)
    values: dict[str, Any] = {}
    for given, value in data.items():
        name = _canonical(str(given), fields, aliases)
        path = f"{section}.{given}" if section else str(given)
        if name not in fields:
            known = [*fields, *(alias for alias, ours in aliases.items() if ours in fields)]
            problems.append(Problem(path, f"unknown key {path!r}{did_you_mean(str(given), known)}"))
        elif name in values:
            problems.append(Problem(path, f"{path!r} and {name!r} are the same key; give it once"))
        else:
            values[name] = _read(hints[name], fields[name], value, path, problems)
    for name, field in fields.items():
        if name not in values and is_required(field):
            path = f"{section}.{name}" if section else name
            problems.append(Problem(path, f"missing key {path!r}: {help_of(field)}", missing=True))
    if len(problems) > before:
        raise _InvalidError
    return cls(**values)


def _canonical(given: str, fields: Mapping[str, Any], aliases: Mapping[str, str]) -> str:
    for name in (given, given.replace("-", "_")):
        if name in fields:
            return name
        if name in aliases:
            return aliases[name]
    return given


def _read(annotation: Any, field: dataclasses.Field[Any], value: Any, path: str, problems: list[Problem]) -> Any:
    try:
        result = _convert(annotation, value, path, problems)
    except _InvalidError:
        return None
    choices = choices_of(field)
    if choices and result is not None and result not in choices:
        # YAML and shells write `packing: False` for packing: none
        word = words_of(field).get(str(value).lower(), str(value).lower())
        if word in choices:
            return word
        registered = _plugin_names(field, path, problems)
        if result in registered:
            return result
        allowed = ", ".join([*choices, *registered])
        problems.append(Problem(path, f"{path} must be one of {allowed}, not {value!r}"))
    return result


def _plugin_names(field: dataclasses.Field[Any], path: str, problems: list[Problem]) -> list[str]:
    """The names that installed packages register for a field, for values that are not built in."""
    group = plugins_of(field)
    try:
        return list(find_plugins(group)) if group else []
    except ConfigError as error:
        problems += [Problem(path, problem) for problem in error.problems]
        return []


def _convert(annotation: Any, value: Any, path: str, problems: list[Problem]) -> Any:
    """`value` as `annotation` says, or `_InvalidError` with the problem recorded."""
    if annotation is Any:
        return value
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        [inner] = [argument for argument in arguments if argument is not type(None)]
        if value is None or (inner is not str and isinstance(value, str) and value.lower() in _NULL):
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
            return (str(value),)
        _fail(problems, path, f"{path} must be a list, not {describe_value(value)}")
    before = len(problems)
    items = []
    for index, item in enumerate(value):
        try:
            items.append(_convert(inner, item, f"{path}[{index}]", problems))
        except _InvalidError:
            continue
    if len(problems) > before:
        raise _InvalidError
    return tuple(items)


def _convert_scalar(kind: Any, value: Any, path: str, problems: list[Problem]) -> Any:
    text = value.strip() if isinstance(value, str) else value
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(text).lower() in _TRUE | _FALSE:
            return str(text).lower() in _TRUE
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
        return str(value)
    expected = {str: "text", int: "a whole number", float: "a number"}.get(kind, str(kind))
    return _fail(problems, path, f"{path} must be {expected}, not {describe_value(value)}")


def _number(value: Any) -> float | None:
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.lstrip("+-").isdecimal():
        return int(value)  # exact, where float would round
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def describe_value(value: Any) -> str:
    """A value in words for an error message, cut short when it is long."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fail(problems: list[Problem], path: str, message: str) -> typing.NoReturn:
    problems.append(Problem(path, message))
    raise _InvalidError
