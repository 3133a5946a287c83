"""Conversations as chat templates are given them, and how they are found in a row."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sftkit.config.schema import RESERVED_VARIABLES
from sftkit.core.message_fields import REASONING_FIELDS, REASONING_PART_FIELDS, REASONING_PART_TYPES
from sftkit.core.row_log import RowError

Message = Mapping[str, Any]

ASSISTANT_ROLES = frozenset(
    {"assistant", "assistant_tool_call", "model", "gpt", "bot", "chatbot", "chatgpt", "ai", "function_call"}
)

_REASONING_ENDS = re.compile(r"</think>|</reasoning>|</thought>|</seed:think>|\[/THINK\]")
USUAL_ROLES = frozenset({"system", "user", "assistant", "tool"})


@dataclass(frozen=True)
class Conversation:
    """What a chat template is given.

    messages: a list of messages, or the whole row for templates that take one. variables: what else the template may
    ask for (`chat_template_kwargs`).
    """

    messages: Sequence[Message] | Mapping[str, Any]
    tools: list[Any] | None = None
    documents: list[Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def column(self) -> str | None:
        """Where in a whole row the messages stand, None for a list of them.

        Raises:
            RowError: the row has no list of messages, or several.
        """
        if not isinstance(self.messages, Mapping):
            return None
        found = [name for name, value in self.messages.items() if _are_messages(value)]
        if len(found) != 1:
            what = f"{' and '.join(map(repr, found))} hold" if found else "no column holds"
            raise RowError(f"{what} a list of messages; cannot prove a mask of this row")
        return found[0]

    @property
    def message_list(self) -> Sequence[Message]:
        """The messages themselves; `RowError` as `column`."""
        if not isinstance(self.messages, Mapping):
            return self.messages
        assert self.column is not None
        turns: Sequence[Message] = self.messages[self.column]
        return turns

    def with_message_list(self, turns: Sequence[Message]) -> Conversation:
        """The same conversation with other messages."""
        if not isinstance(self.messages, Mapping):
            return replace(self, messages=turns)
        assert self.column is not None
        return replace(self, messages={**self.messages, self.column: list(turns)})

    def first_messages(self, count: int) -> Conversation:
        """The conversation as it stood when it had `count` messages."""
        return self.with_message_list(self.message_list[:count])


def role_of(message: Message) -> object:
    """A message's role, whatever the key is called."""
    return message["role"] if "role" in message else message.get("from")


def content_of(message: Message) -> Any:
    """A message's content, whatever the key is called."""
    return message["content"] if "content" in message else message.get("value")


def reasoning_texts(message: Message) -> list[str]:
    """The texts of a message's reasoning, in fields or parts of its own, as templates may trim them."""
    texts = [message.get(key) for key in REASONING_FIELDS]
    content = content_of(message)
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type") in REASONING_PART_TYPES]
        texts += [value for part in parts for value in map(part.get, REASONING_PART_FIELDS)]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


def text_of(message: Message) -> str:
    """A message's content as one text, of parts those that are text; "" for none."""
    content = content_of(message)
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return "".join(text for text in texts if isinstance(text, str))


def text_after_reasoning(text: str) -> str:
    """What of a content follows the reasoning in it, trimmed: templates may take the reasoning out."""
    return _REASONING_ENDS.split(text)[-1].strip()


def is_assistant(message: Message) -> bool:
    """Whether a message is the assistant's, by any name that this role goes by."""
    role = role_of(message)
    return isinstance(role, str) and role.lower() in ASSISTANT_ROLES


def assistant_indices(messages: Sequence[Message]) -> list[int]:
    """Places of the assistant's messages.

    Raises:
        RowError: there is none.
    """
    try:
        usual = USUAL_ROLES.issuperset([message.get("role") for message in messages])
    except TypeError:  # a role that is no text, and cannot be one of these
        usual = False
    if usual:
        turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    else:
        turns = [place for place, message in enumerate(messages) if is_assistant(message)]
    if not turns:
        names = ", ".join(dict.fromkeys(str(role_of(message)) for message in messages))
        raise RowError(f"no assistant turn in this conversation (roles: {names})")
    return turns


def read_conversation(
    row: Mapping[str, Any], column: str | None, variables: Mapping[str, Any] | None = None
) -> Conversation:
    """The conversation of a row: one column, or the whole row when `column` is None.

    variables: `chat_template_kwargs` of the run; those of a column of this name go over them.

    Raises:
        RowError: the column is missing or is no list of messages; `tools` or `documents` are not lists;
            `chat_template_kwargs` is no object.
    """
    tools, documents = _listed(row, "tools"), _listed(row, "documents")
    given = variables or {}
    if row.get("chat_template_kwargs"):
        given = {**given, **_variables(row["chat_template_kwargs"])}
    if column is None:
        return Conversation(row, tools, documents, given)
    if column not in row:
        raise RowError(f"column {column!r} not found; columns here: {', '.join(row)}")
    messages = row[column]
    if not isinstance(messages, list) or not messages:
        raise RowError(f"column {column!r} must hold a list of messages, not {_kind(messages)}")
    if set(map(type, messages)) != {dict}:  # no loop in Python where all is well
        for index, message in enumerate(messages):
            if not isinstance(message, dict):
                raise RowError(f"message {index} of column {column!r} must be an object, not {_kind(message)}")
    return Conversation(messages, tools, documents, given)


def _are_messages(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, dict) and ("role" in message or "from" in message) for message in value)
    )


def _variables(value: Any) -> dict[str, Any]:
    """A `chat_template_kwargs` column: an object, or one as JSON text; nulls, which columns of other rows leave, say
    nothing."""
    if isinstance(value, str):
        value = _parsed(value, "chat_template_kwargs")
    if not isinstance(value, dict):
        raise RowError(f"column 'chat_template_kwargs' must hold an object, not {_kind(value)}")
    given = {str(name): item for name, item in value.items() if item is not None}
    for name in given:
        if name in RESERVED_VARIABLES:
            raise RowError(f"column 'chat_template_kwargs' may not hold {name!r}")
    return given


def _listed(row: Mapping[str, Any], column: str) -> list[Any] | None:
    """A column that holds a list, also as JSON text, whole or item by item; None and "" mean that there is none."""
    value = row.get(column)
    if isinstance(value, str) and value.strip():
        value = _parsed(value, column)
    if not value:
        return None
    if not isinstance(value, list):
        raise RowError(f"column {column!r} must hold a list, not {_kind(value)}")
    if any(isinstance(item, str) and item.lstrip().startswith("{") for item in value):
        return [_parsed(item, column) if isinstance(item, str) else item for item in value]
    return value


def _parsed(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RowError(f"column {column!r} holds text that is not JSON: {error.msg}") from None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return "an empty list" if value == [] else type(value).__name__
