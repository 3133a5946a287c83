"""Converts tool calls from the formats found in data sets to the one that chat templates take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sftkit.core.row_log import RowError

Call = dict[str, Any]
"""`{"type": "function", "function": {"name": ..., "arguments": {...}}}`, with an `id` where the data has one."""

_CALL_START = re.compile(r"\[\s*\{|\{\s*\"")


class MalformedCallError(RowError):
    """JSON does not parse, or a tool call or a tool is no object with a name."""


def parse_calls(value: Any) -> tuple[Call, ...]:
    """Read one call or a list of calls, each with `name` and `arguments`, at the top or under `function`.

    Raises:
        RowError: a value is not a call, or its arguments are not an object.

    Example:
        >>> parse_calls({"name": "add", "arguments": '{"a": 1}'})
        ({'type': 'function', 'function': {'name': 'add', 'arguments': {'a': 1}}},)
    """
    if isinstance(value, list) and value:
        return tuple(_call(each) for each in value)
    return (_call(value),)


def split_text_and_calls(text: str) -> tuple[str, tuple[Call, ...]]:
    """Split a text into its prose and the tool calls at its end: a JSON object, a list, or several JSON values.

    Raises:
        RowError: the text does not end with a call.
    """
    try:
        return "", parse_calls(parse_json(text, "its call"))
    except MalformedCallError as error:
        for start in _CALL_START.finditer(text):
            calls, end = _calls_from(text, start.start())
            if calls and end == len(text):
                return text[: start.start()].strip(), calls
            if calls:
                break
        raise error


def message_calls(message: Mapping[str, Any]) -> tuple[Call, ...]:
    """Read the calls under the keys `tool_calls` (also as JSON text) and `function_call` (the older form) of a message.

    Raises:
        RowError: a value is not a call.
    """
    calls, single = message.get("tool_calls"), message.get("function_call")
    if isinstance(calls, str) and calls.strip():
        calls = parse_json(calls, "its tool_calls")
    return (*(parse_calls(calls) if calls else ()), *(parse_calls(single) if single else ()))


def parse_json(text: Any, what: str) -> Any:
    """Parse JSON text; return any other value unchanged.

    Args:
        text: JSON text, or a value.
        what: how to refer to it in the error.

    Raises:
        RowError: the text is not JSON.
    """
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a number with too many digits is a ValueError
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise MalformedCallError(f"{what} is not JSON: {reason}") from None


def is_object_text(text: str) -> bool:
    """Return whether a text is JSON of an object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def type_name(value: Any) -> str:
    """Name the type of a value for an error message."""
    if value is None:
        return "null"
    return "an empty list" if value == [] else type(value).__name__


def _call(value: Any) -> Call:
    if not isinstance(value, dict):
        raise MalformedCallError(f"a call must be an object with a name, not {type_name(value)}")
    function = value.get("function")
    if isinstance(function, dict):
        around = {key: each for key, each in value.items() if key != "function"}
    else:
        function = {key: each for key, each in value.items() if key not in ("id", "type")}
        around = {"id": value["id"]} if value.get("id") is not None else {}
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise MalformedCallError(f"a call has no name (keys: {', '.join(function) or 'none'})")
    key = "parameters" if "arguments" not in function and "parameters" in function else "arguments"
    if key not in function and len(function) > 1:
        raise MalformedCallError(f"the call of {name!r} has no arguments (keys: {', '.join(function)})")
    arguments = function.get(key)
    if isinstance(arguments, str):
        arguments = parse_json(arguments, f"the arguments of {name!r}") if arguments.strip() else None
    if arguments is not None and not isinstance(arguments, dict):
        raise MalformedCallError(f"the arguments of {name!r} must be an object, not {type_name(arguments)}")
    if "type" in value and isinstance(value.get("function"), dict) and key == "arguments" and key in function:
        return {**value, "function": {**function, key: arguments or {}}}  # in the order of the data
    others = {other: each for other, each in function.items() if other not in ("name", key)}
    return {"type": "function", **around, "function": {"name": name, "arguments": arguments or {}, **others}}


def _calls_from(text: str, start: int) -> tuple[tuple[Call, ...], int]:
    """Read consecutive calls from `start` on; also return where they, and the white space after them, end."""
    decoder, calls = json.JSONDecoder(), list[Call]()
    with suppress(ValueError, RecursionError, RowError):
        while start < len(text):
            value, end = decoder.raw_decode(text, start)
            calls += parse_calls(value)
            start = len(text) - len(text[end:].lstrip())
    return tuple(calls), start
