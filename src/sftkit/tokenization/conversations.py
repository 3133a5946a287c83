"""Conversations as chat templates get them, and how they are read from rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

from sftkit.core.message_fields import (
    ASSISTANT_ROLES,
    REASONING_FIELDS,
    REASONING_PART_FIELDS,
    REASONING_PART_TYPES,
    RESERVED_VARIABLES,
    USUAL_ROLES,
)
from sftkit.core.row_log import RowError

Message = Mapping[str, Any]

PLAIN_KEYS = frozenset({"role", "content"})
"""The keys of messages that have nothing else."""

_TEXT = frozenset({str})

_REASONING_END = re.compile(r"</think>|</reasoning>|</thought>|</seed:think>|\[/THINK\]")


class MessageShape(NamedTuple):
    """What is known of messages without looking at their texts."""

    roles: Sequence[object]
    """The role of each message, from `role` only."""
    keys: frozenset[str]
    """The keys of all messages."""
    types: frozenset[type]
    """The types of all values of the messages."""


class PlainMessages(NamedTuple):
    """Messages that consist of a role and a content, which are texts."""

    roles: list[str]
    contents: list[str]

    @classmethod
    def of(cls, messages: Sequence[Any]) -> PlainMessages | None:
        """Take messages apart; return None if one of them has anything else."""
        try:
            roles = [message["role"] for message in messages]
            contents = [message["content"] for message in messages]
        except (KeyError, TypeError):
            return None
        if set(map(type, roles)) != _TEXT or set(map(type, contents)) != _TEXT:
            return None
        if set(map(type, messages)) != {dict} or set(map(len, messages)) != {2}:
            return None
        return cls(roles, contents)


@dataclass(frozen=True)
class Conversation:
    """The input of a chat template."""

    messages: Sequence[Message] | Mapping[str, Any]
    """The messages; for templates that take a whole row as `messages`, the row."""
    tools: list[Any] | None = None
    documents: list[Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Extra variables for the template (`chat_template_kwargs`)."""

    @cached_property
    def plain(self) -> PlainMessages | None:
        """The roles and contents of the messages; None if they have anything else, or `messages` is a row."""
        return PlainMessages.of(self.messages) if type(self.messages) is list else None

    @cached_property
    def column(self) -> str | None:
        """The column of the messages in a whole row; None if `messages` is not a row.

        Raises:
            RowError: the row has no list of messages, or several.
        """
        if not isinstance(self.messages, Mapping):
            return None
        found = [name for name, value in self.messages.items() if _are_messages(value)]
        if len(found) != 1:
            what = f"the columns {' and '.join(map(repr, found))} contain" if found else "no column contains"
            raise RowError(f"{what} a list of messages; to verify a mask, exactly one column must")
        return found[0]

    @property
    def has_messages(self) -> bool:
        """Whether `message_list` is known: `messages` is not a row, or one in which one column holds messages."""
        return not isinstance(self.messages, Mapping) or sum(map(_are_messages, self.messages.values())) == 1

    @property
    def message_list(self) -> Sequence[Message]:
        """The messages, also those in a whole row.

        Raises:
            RowError: as `column`.
        """
        if type(self.messages) is list or not isinstance(self.messages, Mapping):
            return self.messages  # the first question is faster
        assert self.column is not None
        messages: Sequence[Message] = self.messages[self.column]
        return messages

    @cached_property
    def shape(self) -> MessageShape:
        """The shape of the messages; raises as `message_list`."""
        if self.plain is not None:
            return MessageShape(self.plain.roles, PLAIN_KEYS, _TEXT)
        messages = self.message_list
        return MessageShape(
            [message.get("role") for message in messages],
            frozenset(chain.from_iterable(messages)),
            frozenset(map(type, chain.from_iterable([message.values() for message in messages]))),
        )

    def with_message_list(self, messages: Sequence[Message]) -> Conversation:
        """Return the conversation with other messages."""
        if not isinstance(self.messages, Mapping):
            return replace(self, messages=messages)
        assert self.column is not None
        return replace(self, messages={**self.messages, self.column: list(messages)})

    def first_messages(self, count: int) -> Conversation:
        """Return the conversation cut after `count` messages."""
        return self.with_message_list(self.message_list[:count])


def role_of(message: Message) -> object:
    """Return the role of a message, from `role` or `from`."""
    return message["role"] if "role" in message else message.get("from")


def content_of(message: Message) -> Any:
    """Return the content of a message, from `content` or `value`."""
    return message["content"] if "content" in message else message.get("value")


def reasoning_texts(message: Message) -> list[str]:
    """Return the texts in the reasoning fields and parts of a message, stripped, because templates may strip them.

    Example:
        >>> reasoning_texts({"role": "assistant", "content": "yes", "reasoning_content": "hm "})
        ['hm']
    """
    texts = [message.get(key) for key in REASONING_FIELDS]
    content = content_of(message)
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type") in REASONING_PART_TYPES]
        texts += [value for part in parts for value in map(part.get, REASONING_PART_FIELDS)]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


def text_of(message: Message) -> str:
    """Return the content of a message as one text, without parts that are not text."""
    content = content_of(message)
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return "".join(text for text in texts if isinstance(text, str))


def text_after_reasoning(text: str) -> str:
    """Return what follows the reasoning in a content, stripped, because templates may remove the reasoning.

    Example:
        >>> text_after_reasoning("<think>hm</think> yes")
        'yes'
    """
    return _REASONING_END.split(text)[-1].strip()


def is_assistant(message: Message) -> bool:
    """Return whether a message is of the assistant, under any name of this role."""
    role = role_of(message)
    return isinstance(role, str) and role.lower() in ASSISTANT_ROLES


def assistant_indices(messages: Sequence[Message]) -> list[int]:
    """Return the indices of the assistant messages.

    Raises:
        RowError: there are none.
    """
    try:
        usual = USUAL_ROLES.issuperset([message.get("role") for message in messages])
    except TypeError:  # a role that cannot be hashed
        usual = False
    if usual:  # most conversations; this is faster
        indices = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    else:
        indices = [index for index, message in enumerate(messages) if is_assistant(message)]
    if not indices:
        names = ", ".join(dict.fromkeys(str(role_of(message)) for message in messages))
        raise RowError(f"the conversation has no assistant message (roles: {names})")
    return indices


def read_conversation(
    row: Mapping[str, Any], column: str | None, variables: Mapping[str, Any] | None = None
) -> Conversation:
    """Read the conversation of a row.

    Args:
        row: the row; its columns `tools`, `documents` and `chat_template_kwargs` are used, too.
        column: the column of the messages; None passes the whole row as `messages`.
        variables: `chat_template_kwargs` of the run. Those of the row take precedence.

    Raises:
        RowError: the column is missing or not a list of messages, `tools` or `documents` is not a list, or
            `chat_template_kwargs` is not an object.
    """
    tools, documents = _read_list(row, "tools"), _read_list(row, "documents")
    all_variables = variables or {}
    if row.get("chat_template_kwargs"):
        all_variables = {**all_variables, **_read_variables(row["chat_template_kwargs"])}
    if column is None:
        return Conversation(row, tools, documents, all_variables)
    if column not in row:
        raise RowError(f"column {column!r} not found; columns here: {', '.join(row)}")
    messages = row[column]
    if not isinstance(messages, list) or not messages:
        raise RowError(f"column {column!r} must hold a list of messages, not {_type_name(messages)}")
    plain = PlainMessages.of(messages)
    if plain is not None:  # most conversations
        conversation = Conversation(messages, tools, documents, all_variables)
        vars(conversation)["plain"] = plain  # as the cached property, but faster
        return conversation
    if set(map(type, messages)) != {dict}:  # faster than a loop over all messages
        for index, message in enumerate(messages):
            if not isinstance(message, dict):
                raise RowError(f"message {index} of column {column!r} must be an object, not {_type_name(message)}")
    return Conversation(messages, tools, documents, all_variables)


def _are_messages(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, dict) and ("role" in message or "from" in message) for message in value)
    )


def _read_variables(value: Any) -> dict[str, Any]:
    """Read a `chat_template_kwargs` column, an object or JSON text of one.

    Nulls are ignored: columnar formats fill in the keys of other rows with null.
    """
    if isinstance(value, str):
        value = _parse_json(value, "chat_template_kwargs")
    if not isinstance(value, dict):
        raise RowError(f"column 'chat_template_kwargs' must hold an object, not {_type_name(value)}")
    variables = {str(name): item for name, item in value.items() if item is not None}
    for name in variables:
        if name in RESERVED_VARIABLES:
            raise RowError(f"column 'chat_template_kwargs' must not hold {name!r}, which apply_chat_template reserves")
    return variables


def _read_list(row: Mapping[str, Any], column: str) -> list[Any] | None:
    """Read a column that contains a list; the list or its items may be JSON text. None and "" mean no list."""
    value = row.get(column)
    if isinstance(value, str) and value.strip():
        value = _parse_json(value, column)
    if not value:
        return None
    if not isinstance(value, list):
        raise RowError(f"column {column!r} must hold a list, not {_type_name(value)}")
    if any(isinstance(item, str) and item.lstrip().startswith("{") for item in value):
        return [_parse_json(item, column) if isinstance(item, str) else item for item in value]
    return value


def _parse_json(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RowError(f"column {column!r} holds text that is not JSON: {error.msg}") from None


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    return "an empty list" if value == [] else type(value).__name__
