"""Convert values from YAML files and command lines to the types of training arguments."""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType, NoneType
from typing import Any, Literal

import yaml

from sftkit.config.binding import describe_value
from sftkit.config.fields import did_you_mean
from sftkit.config.unknown_keys import unknown_key_message
from sftkit.config.words import is_null_word, parse_boolean
from sftkit.training.arguments.argument_fields import TrainingArgument, union_members

_MOST_NAMED_CHOICES = 12

# The Trainer takes more here than transformers' annotations say.
_WIDER_TYPES: Mapping[str, Any] = MappingProxyType(
    {"fsdp": bool | str | None, "resume_from_checkpoint": bool | str | None}
)


class _WrongTypeError(Exception):
    """A value is not of the expected type; the message names that type."""


def coerce(given: Mapping[str, Any], fields: Mapping[str, TrainingArgument], problems: list[str]) -> dict[str, Any]:
    """Convert every value to the type of its field.

    Args:
        given: key -> value. Text is read as on a command line ("1e-06", "True", '{"a": 1}', "null").
        fields: the known keys.
        problems: receives one sentence, naming the key, for each unknown key and each value that does not convert.

    Returns:
        The values that could be converted.

    Example:
        >>> problems = []
        >>> fields = {"max_steps": TrainingArgument("max_steps", int, "", "-1")}
        >>> coerce({"max_steps": "1e3"}, fields, problems)
        {'max_steps': 1000}
        >>> coerce({"max_steps": "many"}, fields, problems), problems
        ({}, ["max_steps must be a whole number, not 'many'"])
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        field = fields.get(key)
        if field is None:
            hint = did_you_mean(key, fields)
            problems.append(unknown_key_message(f"key {key!r}", key, "training_arguments", fields, hint))
            continue
        try:
            values[key] = _convert(field, value)
        except _WrongTypeError as error:
            problems.append(f"{key} must be {error}, not {describe_value(value)}")
    return values


def _convert(field: TrainingArgument, value: Any) -> Any:
    members = union_members(_WIDER_TYPES.get(field.name, field.annotation))
    if field.choices:
        return _choice(field, value, optional=NoneType in members)
    is_list_of_names = field.name == "report_to"  # "none" is one of the names
    if NoneType in members and (value is None or (is_null_word(value) and not is_list_of_names)):
        return None
    if value is None:
        raise _WrongTypeError(_expected(members))
    if is_list_of_names and isinstance(value, str) and "," in value and not value.startswith("["):
        return _split(value)
    for kind, convert in _CONVERTERS.items():
        for member in members:
            if (typing.get_origin(member) or member) is kind:
                try:
                    return convert(member, value)
                except _WrongTypeError:
                    continue
    if not any(_is_text(member) for member in members):
        raise _WrongTypeError(_expected(members))
    try:
        return _text(value)
    except _WrongTypeError:
        raise _WrongTypeError(_expected(members)) from None


def _is_text(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, str)


def _choice(field: TrainingArgument, value: Any, *, optional: bool) -> Any:
    if value is False and "no" in field.choices:
        return "no"  # YAML reads a bare `no` as false
    if optional and (value is None or is_null_word(str(value))):
        return None
    text = str(value).strip()
    for candidate in (text, text.lower()):
        if candidate in field.choices:
            return candidate
    if len(field.choices) > _MOST_NAMED_CHOICES:
        raise _WrongTypeError(f"one of {len(field.choices)} known names{did_you_mean(text, field.choices)}")
    raise _WrongTypeError(f"one of {', '.join(field.choices)}")


def _boolean(_: Any, value: Any) -> bool:
    boolean = parse_boolean(value)
    if boolean is None:
        raise _WrongTypeError
    return boolean


def _literal(kind: Any, value: Any) -> Any:
    for allowed in typing.get_args(kind):
        if value is allowed or str(value).lower() == str(allowed).lower():
            return allowed
    raise _WrongTypeError


def _whole_number(_: Any, value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise _WrongTypeError
    return int(number)


def _float(_: Any, value: Any) -> float:
    return float(_number(value))


def _number(value: Any) -> int | float:
    if isinstance(value, str):
        text = value.strip()
        if text.lstrip("+-").isdecimal():
            return int(text)
        try:
            value = float(text)
        except ValueError:
            raise _WrongTypeError from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _WrongTypeError
    return value


def _mapping(_: Any, value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value.strip().startswith("{"):
        value = _parsed(value)
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    raise _WrongTypeError


def _list(kind: Any, value: Any) -> list[str]:
    if isinstance(value, str) and value.strip().startswith("["):
        value = _parsed(value)
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    if kind == list[str] and isinstance(value, str) and "," in value:
        return _split(value)
    raise _WrongTypeError


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parsed(text: str) -> Any:
    """JSON, or YAML on one line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise _WrongTypeError from None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise _WrongTypeError


# In the order in which they are tried: the narrow types first, because everything can also be read as text.
_CONVERTERS: Mapping[Any, Callable[[Any, Any], Any]] = MappingProxyType(
    {bool: _boolean, Literal: _literal, int: _whole_number, float: _float, dict: _mapping, list: _list}
)


def _expected(members: tuple[Any, ...]) -> str:
    words = {
        bool: "true or false", int: "a whole number", float: "a number", dict: "keys and values", list: "a list",
        Literal: "", NoneType: "",
    }  # fmt: skip
    named = [words.get(typing.get_origin(member) or member, "text") for member in members]
    return " or ".join(dict.fromkeys(word for word in named if word))
