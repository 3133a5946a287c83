"""Takes contents apart that are lists of parts: reasoning, text, and tool calls.

Parts have their content under `value` (LLaMA-Factory), or are the content blocks of Anthropic (`thinking`, `tool_use`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sftkit.core.message_fields import LOSS_FLAGS
from sftkit.core.row_log import RowError
from sftkit.handlers.messages.roles import ASSISTANT, CALL
from sftkit.handlers.messages.tool_calls import Call, parse_calls, parse_json, type_name

THINKING, TOOL_USE, TOOL_RESULT = "thinking", "tool_use", "tool_result"

# Kinds of parts, in the order in which chat templates write them.
_REASONING, _TEXT, _TOOL_CALL = range(3)
_KINDS: Mapping[str, int] = MappingProxyType(
    {
        "reasoning": _REASONING,
        "text": _TEXT,
        "tool_call": _TOOL_CALL,
        THINKING: _REASONING,
        "think": _REASONING,
        "input_text": _TEXT,
        "output_text": _TEXT,
        "refusal": _TEXT,
        TOOL_USE: _TOOL_CALL,
    }
)
_SAID_TO_BE_KNOWN = ("reasoning", "text", "tool_call", THINKING, TOOL_USE, TOOL_RESULT)
_REDACTED = "redacted_thinking"
_VALUE, _TYPE = "value", "type"
_NOT_FOR_TEMPLATES = frozenset({"tool_call", "input_text", "output_text", "refusal", _REDACTED})
"""Types of parts that no chat template is known to write."""
_MEDIA = frozenset({"text", "image", "image_url", "audio", "video"})


@dataclass(frozen=True)
class Content:
    """The content of a message, taken apart."""

    text: str | list[Any] = ""
    """What templates get as `content`: text, or parts."""
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Training flags, which then apply to the whole message."""
    redacted: tuple[Any, ...] = ()
    """Reasoning that the provider has encrypted."""


def are_parts(content: Any) -> bool:
    """Return whether a content is a list of parts: objects with a `type`."""
    return isinstance(content, list) and bool(content) and all(map(_is_part, content))


def are_media(content: Any) -> bool:
    """Return whether content consists of parts, and is not a list that is itself the result of a tool."""
    return are_parts(content) and all(part[_TYPE] in _MEDIA for part in content)


def foreign_types(content: Any) -> frozenset[str]:
    """Return the types of parts in a content that only some chat templates write, such as `thinking`.

    A part with a `value` counts as of the type `value`, which none writes.
    """
    if not are_parts(content):
        return frozenset()
    types = {_VALUE if _VALUE in part else part[_TYPE] for part in content}
    if types & {"reasoning", "think"}:
        types.add(THINKING)
    return frozenset(types & {_VALUE, THINKING, TOOL_USE, TOOL_RESULT, *_NOT_FOR_TEMPLATES})


def parse_parts(parts: Sequence[Mapping[str, Any]], role: str) -> Content:
    """Take parts apart.

    Raises:
        RowError: a part is not understood, or the parts have an order in which no template writes them.
    """
    texts: dict[int, list[str]] = {_TEXT: [], _REASONING: []}
    calls: list[Call] = []
    latest = _REASONING
    redacted = [part.get("data") for part in parts if part[_TYPE] == _REDACTED]
    for part in parts:
        name = part[_TYPE]
        if name == _REDACTED and role in (ASSISTANT, CALL):
            continue
        kind = _KINDS.get(name)
        if kind is None:
            raise RowError(f"a part of type {name!r} is not understood; known are {', '.join(_SAID_TO_BE_KNOWN)}")
        if kind != _TEXT and role not in (ASSISTANT, CALL):
            raise RowError(f"a {role} message cannot contain a part of type {name!r}")
        if kind < latest:
            order = ", ".join(each[_TYPE] for each in parts)
            raise RowError(f"its parts are in the order {order}; they must be reasoning, then text, then tool calls")
        latest = kind
        if kind == _TOOL_CALL:
            calls += parse_calls(_call_of(part))
        else:
            texts[kind].append(text_of_part(part))
    reasoning = "".join(texts[_REASONING]) if texts[_REASONING] else None
    return Content("".join(texts[_TEXT]), reasoning, tuple(calls), _shared_flags(parts), tuple(redacted))


def text_of_part(part: Mapping[str, Any]) -> str:
    """Return the text of a part, under `value`, its type, or `text`.

    Raises:
        RowError: it has no text.
    """
    name = part[_TYPE]
    value: Any = next((part[key] for key in (_VALUE, name, "text", THINKING) if part.get(key) is not None), None)
    if are_parts(value) and all(each[_TYPE] == "text" for each in value):  # Mistral has them in thinking parts
        return "".join(map(text_of_part, value))
    if not isinstance(value, str):
        raise RowError(f"the value of a part of type {name!r} must be text, not {type_name(value)}")
    return value


def _call_of(part: Mapping[str, Any]) -> Any:
    if _VALUE in part:
        return parse_json(part[_VALUE], "its call")
    call = {key: value for key, value in part.items() if key in ("id", "name", "function")}
    arguments: Any = next((part[key] for key in ("input", "arguments", "args") if part.get(key) is not None), {})
    return call if isinstance(call.get("function"), dict) else {**call, "arguments": arguments}


def _shared_flags(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the training flags of the parts, which must be equal, for the whole message."""
    flags = {}
    for name in LOSS_FLAGS:
        values = [part.get(name) for part in parts]
        if any(value != values[0] for value in values):
            raise RowError(f"its parts differ in {name!r}, which only a whole message can have")
        if values[0] is not None:
            flags[name] = values[0]
    return flags


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get(_TYPE), str)
