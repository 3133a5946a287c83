"""Converts the conversation formats found in data sets to the messages that chat templates of transformers take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sftkit.config.binding import describe_value
from sftkit.config.fields import did_you_mean, option
from sftkit.core.message_fields import LOSS_FLAGS, REASONING_FIELDS
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.errors import ConfigError
from sftkit.handlers.base import Step, missing_column_message
from sftkit.handlers.formats.format_handler import FormatHandler
from sftkit.handlers.formats.message_lists import CONVERSATION_COLUMNS
from sftkit.handlers.formats.row_format import MESSAGES
from sftkit.handlers.tool_calls import (
    Call,
    message_calls,
    parse_calls,
    parse_json,
    parse_tools,
    split_text_and_calls,
    type_name,
)

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

TOOLS = "tools"

_SYSTEM, _DEVELOPER, _USER, _ASSISTANT, _TOOL = "system", "developer", "user", "assistant", "tool"
_CALL = "function_call"

ROLES: Mapping[str, str] = MappingProxyType(
    {
        _SYSTEM: _SYSTEM,
        _DEVELOPER: _DEVELOPER,
        **dict.fromkeys((_USER, "human"), _USER),
        **dict.fromkeys((_ASSISTANT, "gpt", "model", "bot", "chatbot", "chatgpt", "ai"), _ASSISTANT),
        **dict.fromkeys((_CALL, "tool_call"), _CALL),
        **dict.fromkeys((_TOOL, "observation", "function_response", "tool_response", "function"), _TOOL),
    }
)
"""Accepted role names and the role that each means; `function_call` is an assistant message whose text is a call."""

# Kinds of content parts, in the order in which chat templates write them.
_REASONING, _TEXT, _TOOL_CALL = range(3)
_PART_KINDS = MappingProxyType({"reasoning": _REASONING, "text": _TEXT, "tool_call": _TOOL_CALL})
_MEDIA = frozenset({"text", "image", "image_url", "audio", "video"})

_THINKING = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ConvertToMessages(FormatHandler):
    """Converts rows of any known format to `messages`: those with the question and the answer in columns of their own
    (Alpaca and others), ShareGPT conversations (`from`/`value`, `function_call`, `observation`) and content in parts
    (`type`/`value`). Parses tool calls and `tools` into objects. Other keys of a message are kept.
    """

    registered_as = "convert_to_messages"

    conversation_column: str | None = option(
        None,
        help="Column that holds the conversation; by default `messages`, `conversations` or `conversation`, or the "
        "columns of another format.",
    )
    messages_column: str = option(MESSAGES, help="Column the messages are written to.")
    system_column: str = option("system", help="Column whose text becomes the system turn, where there is none.")
    tools_column: str = option(
        TOOLS, help="Column that holds the tools, a list or JSON text of one; they are written to `tools`."
    )
    role_key: str | None = option(None, help="Key that holds the role; by default `role` or `from`.")
    content_key: str | None = option(None, help="Key that holds the content; by default `content` or `value`.")
    roles: Mapping[str, str] = option(
        factory=dict, help="Role names in your data -> `user`, `assistant`, `system`, `tool` or `function_call`."
    )

    only_if_needed: bool = option(False, help="Leave a row alone whose messages chat templates can read as they are.")

    def reads(self) -> tuple[str, ...]:
        """The conversation column, if it is named."""
        return (self.conversation_column,) if self.conversation_column else ()

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """The system prompt, the tools, and the columns of the format if no column holds the conversation."""
        columns = () if self.conversation_column else super().may_read(tokenizer)
        return (*columns, self.system_column, self.tools_column)

    def content_goes_to(self, column: str, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """Tools stay tools; everything else becomes messages."""
        if column == self.tools_column:
            return (TOOLS,)
        return (self.messages_column,) if column in (*self.reads(), *self.may_read(tokenizer)) else ()

    def writes(self) -> tuple[str, ...]:
        """The messages and the tools."""
        return (self.messages_column, TOOLS)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Convert each row."""
        for name, role in self.roles.items():
            if role not in ROLES:
                raise ConfigError(
                    f"convert_to_messages: roles.{name}: unknown role {role!r}{did_you_mean(role, ROLES)}"
                )
        return self.converting(tokenizer, self._convert)

    @cached_property
    def _names_format(self) -> bool:
        return self.format is not None or self.answer_column is not None or bool(self.columns)

    def _convert(self, row: Row) -> Row:
        column = self.conversation_column or _first_of(row, *CONVERSATION_COLUMNS)
        is_given = self.conversation_column is not None or (row.get(column) is not None and not self._names_format)
        if not is_given:
            found, row = self.read_format(row)
            row, column = found.to_messages(row), MESSAGES
        if column not in row:
            raise RowError(missing_column_message(column, row))
        turns = row[column]
        if self.only_if_needed and is_given and not needs_conversion(turns):
            return {**row, self.messages_column: turns} if column != self.messages_column else row
        if not isinstance(turns, list) or not turns:
            raise RowError(f"column {column!r} must hold a list of messages, not {type_name(turns)}")
        messages = []
        for index, turn in enumerate(turns):
            try:
                messages.append(self._message(turn))
            except RowError as error:
                raise RowError(f"message {index} of column {column!r}: {error}") from None
        system = row.get(self.system_column)
        if system and all(message["role"] not in (_SYSTEM, _DEVELOPER) for message in messages):
            if not isinstance(system, str):
                raise RowError(f"column {self.system_column!r} must be text, not {type_name(system)}")
            messages.insert(0, {"role": _SYSTEM, "content": system})
        converted = {**row, self.messages_column: messages}
        if self.tools_column in row:
            try:
                converted[TOOLS] = parse_tools(row[self.tools_column])
            except RowError as error:
                raise RowError(f"column {self.tools_column!r}: {error}") from None
        return converted

    def _message(self, turn: Any) -> dict[str, Any]:
        if not isinstance(turn, dict):
            raise RowError(f"it must be an object, not {type_name(turn)}")
        role_key = self.role_key or _first_of(turn, "role", "from")
        content_key = self.content_key or _first_of(turn, "content", "value")
        role = self._role(turn, role_key)
        calls, has_reasoning = message_calls(turn), any(turn.get(key) for key in REASONING_FIELDS)
        content = _parse_content(turn.get(content_key), role, may_be_empty=bool(calls) or has_reasoning)
        if content.reasoning is not None and has_reasoning:
            raise RowError("it has reasoning both in its content and beside it")
        taken = {role_key, content_key, "role", "content", "tool_calls", "function_call"}
        message = {"role": _ASSISTANT if role == _CALL else role, "content": content.text}
        message |= {key: value for key, value in turn.items() if key not in taken}
        for name, flag in content.flags.items():
            if message.get(name, flag) not in (None, flag):
                raise RowError(f"its {name!r} is {message[name]!r}, and that of its parts is {flag!r}")
            message[name] = flag
        if content.reasoning is not None:
            message["reasoning_content"] = content.reasoning
        if content.calls or calls:
            message["tool_calls"] = [*content.calls, *calls]
        return message

    def _role(self, turn: Row, key: str) -> str:
        if key not in turn:
            raise RowError(f"it has no {key!r} (keys: {', '.join(turn) or 'none'})")
        name = turn[key]
        role = ROLES.get(self.roles.get(name, name)) if isinstance(name, str) else None
        if role is None:
            hint = did_you_mean(str(name), {**ROLES, **self.roles})
            raise RowError(f"unknown role {describe_value(name)}{hint}; map it to a known role with `roles`")
        return role


def needs_conversion(conversation: object) -> bool:
    """Whether a conversation has a format that chat templates do not know: `from`/`value`, or parts with a `value`."""
    if not isinstance(conversation, list):
        return False
    if _are_plain(conversation):
        return False
    for turn in conversation:
        if isinstance(turn, dict):
            if "from" in turn and "role" not in turn:
                return True
            content = turn.get("content")
            if type(content) is not str and _has_values(content):
                return True
    return False


def _are_plain(messages: list[Any]) -> bool:
    """Return whether all messages have a role and a text, as in most conversations."""
    try:
        contents = [message.get("content") for message in messages]
        return set(map(type, contents)) == {str} and None not in [message.get("role") for message in messages]
    except AttributeError:  # not all of them are objects
        return False


@dataclass(frozen=True)
class _Content:
    """The content of a message, taken apart."""

    text: str | list[Any] = ""
    """What templates get as `content`: text, or parts."""
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Training flags, which then apply to the whole message."""


def _parse_content(content: Any, role: str, *, may_be_empty: bool) -> _Content:
    """Take the content of a message apart. It may be empty if the message has calls or reasoning under other keys."""
    if content is None:
        if may_be_empty:
            return _Content()
        raise RowError("it has no content")
    if role == _TOOL and not isinstance(content, str) and not _is_media(content):
        return _Content(json.dumps(content, ensure_ascii=False, default=str))  # a result that is not text
    if _has_values(content):
        return _parse_parts(content, role)
    if role == _CALL:
        return _parse_call_content(content)
    if isinstance(content, str) or _is_parts(content):
        return _Content(content)
    raise RowError(f"its content must be text, not {type_name(content)}")


def _parse_call_content(content: Any) -> _Content:
    """Read calls, as objects or as JSON text; reasoning and other text may come before them."""
    if not isinstance(content, str):
        return _Content(calls=parse_calls(content))
    thinking = _THINKING.match(content)
    text, calls = split_text_and_calls(content[thinking.end() :] if thinking else content)
    return _Content(text, thinking[1].strip("\n") if thinking else None, calls)


def _parse_parts(parts: list[Any], role: str) -> _Content:
    texts: dict[int, list[str]] = {_TEXT: [], _REASONING: []}
    calls: list[Call] = []
    latest = _REASONING
    for part in parts:
        name, value = part["type"], part.get("value", part.get("text"))
        kind = _PART_KINDS.get(name)
        if kind is None:
            raise RowError(f"a part of type {name!r} is not understood; known are {', '.join(_PART_KINDS)}")
        if kind != _TEXT and role not in (_ASSISTANT, _CALL):
            raise RowError(f"a {role} message cannot contain a part of type {name!r}")
        if kind < latest:
            order = ", ".join(each["type"] for each in parts)
            raise RowError(f"its parts are in the order {order}; they must be reasoning, then text, then tool calls")
        latest = kind
        if kind == _TOOL_CALL:
            calls += parse_calls(parse_json(value, "its call"))
        elif isinstance(value, str):
            texts[kind].append(value)
        else:
            raise RowError(f"the value of a part of type {name!r} must be text, not {type_name(value)}")
    reasoning = "".join(texts[_REASONING]) if texts[_REASONING] else None
    return _Content("".join(texts[_TEXT]), reasoning, tuple(calls), _shared_flags(parts))


def _shared_flags(parts: list[Any]) -> dict[str, Any]:
    """Return the training flags of the parts, which must be equal, for the whole message."""
    flags = {}
    for name in LOSS_FLAGS:
        values = [part.get(name) for part in parts]
        if any(value != values[0] for value in values):
            raise RowError(f"its parts differ in {name!r}, which only a whole message can have")
        if values[0] is not None:
            flags[name] = values[0]
    return flags


def _is_parts(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and all(map(_is_part, content))


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("type"), str)


def _is_media(content: Any) -> bool:
    """Whether content consists of parts, and is not a list that is itself the result of a tool."""
    return _is_parts(content) and all(part["type"] in _MEDIA for part in content)


def _has_values(content: Any) -> bool:
    """Whether content consists of parts and one of them has its content under `value`."""
    return _is_parts(content) and any("value" in part for part in content)


def _first_of(row: Row, *keys: str) -> str:
    """Return the first of these keys whose value is not null, else the first that exists, else the first."""
    for key in keys:
        if row.get(key) is not None:
            return key
    return next((key for key in keys if key in row), keys[0])
