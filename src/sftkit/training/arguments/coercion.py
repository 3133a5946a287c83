"""Values as YAML and command lines give them -> values of the type that a training argument asks for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import yaml

from sftkit.config.binding import describe
from sftkit.config.fields import nearest
from sftkit.training.arguments.argument_fields import TrainingArgument, union_members

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_NULL = frozenset({"null", "none", "~", ""})

# Where the source's annotation says less than the code takes.
_ANNOTATIONS: Mapping[str, str] = {
    "fsdp": "bool | str | None",
    "resume_from_checkpoint": "bool | str | None",
}
# Text of these may be a list written with commas.
_COMMA_LISTS = frozenset({"report_to"})


class _UnreadableError(Exception):
    """A value is not of the type that is asked for; the message says which one is."""


def coerce(given: Mapping[str, Any], fields: Mapping[str, TrainingArgument], problems: list[str]) -> dict[str, Any]:
    """Read every value as its field's annotation says.

    Args:
        given: key -> value; text is read as a command line means it ("1e-06", "True", '{"a": 1}', "null").
        fields: the known keys.
        problems: gets one sentence, naming the key, for each value that cannot be read and each unknown key.

    Returns:
        The values that could be read.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        field = fields.get(key)
        if field is None:
            problems.append(f"unknown key {key!r}{nearest(key, fields)}")
            continue
        try:
            values[key] = _read(field, value)
        except _UnreadableError as error:
            problems.append(f"{key} must be {error}, not {describe(value)}")
    return values


def _read(field: TrainingArgument, value: Any) -> Any:
    members = union_members(_ANNOTATIONS.get(field.name, field.annotation))
    if field.choices:
        return _read_choice(field, value, optional="None" in members)
    if isinstance(value, str) and value.strip().lower() in _NULL and "None" in members and field.name != "report_to":
        return None
    if value is None:
        if "None" in members:
            return None
        raise _UnreadableError(_expected(members))
    if field.name in _COMMA_LISTS and isinstance(value, str) and "," in value and not value.startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    for member in sorted((member for member in members if member != "None"), key=_strictness):
        try:
            return _read_member(member, value)
        except _UnreadableError:
            continue
    raise _UnreadableError(_expected(members))


def _read_choice(field: TrainingArgument, value: Any, *, optional: bool) -> Any:
    if value is False and "no" in field.choices:
        return "no"  # YAML reads a bare `no` as false
    if optional and (value is None or str(value).strip().lower() in _NULL):
        return None
    text = str(value).strip()
    for candidate in (text, text.lower()):
        if candidate in field.choices:
            return candidate
    if len(field.choices) > 12:
        raise _UnreadableError(
            f"one of the {len(field.choices)} names transformers knows{nearest(text, field.choices)}"
        )
    raise _UnreadableError(f"one of {', '.join(field.choices)}")


def _strictness(member: str) -> int:
    """The narrow types first: everything is also text."""
    order = ("bool", "Literal", "int", "float", "dict", "list", "ParallelismConfig")
    return next((position for position, name in enumerate(order) if member.startswith(name)), len(order))


def _read_member(member: str, value: Any) -> Any:
    if member == "bool":
        return _boolean(value)
    if member == "int":
        number = _number(value)
        if number != int(number):
            raise _UnreadableError("a whole number")
        return int(number)
    if member == "float":
        return float(_number(value))
    if member.startswith("dict") or member == "ParallelismConfig":
        return _mapping(value)
    if member.startswith("list"):
        return _list(value, alone=member == "list[str]")
    if member.startswith("Literal[False]"):
        if value is False or str(value).lower() == "false":
            return False
        raise _UnreadableError("false")
    return _text(value)


def _boolean(value: Any) -> bool:
    word = str(value).strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise _UnreadableError("true or false")


def _number(value: Any) -> int | float:
    if isinstance(value, str):
        text = value.strip()
        if text.lstrip("+-").isdecimal():
            return int(text)
        try:
            value = float(text)
        except ValueError:
            raise _UnreadableError("a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _UnreadableError("a number")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value.strip().startswith("{"):
        value = _structure(value)
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    raise _UnreadableError("keys and values")


def _list(value: Any, *, alone: bool) -> list[str]:
    if isinstance(value, str) and value.strip().startswith("["):
        value = _structure(value)
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    if alone and isinstance(value, str) and "," in value:
        return [part.strip() for part in value.split(",") if part.strip()]
    raise _UnreadableError("a list")


def _structure(text: str) -> Any:
    """JSON, or YAML written on one line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise _UnreadableError("JSON or YAML") from None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise _UnreadableError("text")


def _expected(members: tuple[str, ...]) -> str:
    words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text", "None": "null"}
    named: list[str] = []
    for member in members:
        if member.startswith(("dict", "ParallelismConfig")):
            named.append("keys and values")
        elif member.startswith("list"):
            named.append("a list")
        else:
            named.append(words.get(member, member))
    return " or ".join(dict.fromkeys(word for word in named if word != "null")) or "null"
