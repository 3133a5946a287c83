"""Reads the value of a conversation column: a list of turns in the forms found in data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sftkit.core.row_log import RowError
from sftkit.handlers.messages.roles import ASSISTANT, USER
from sftkit.handlers.messages.template_forms import TemplateForms
from sftkit.handlers.messages.tool_calls import parse_json, type_name
from sftkit.handlers.messages.tool_results import Message
from sftkit.handlers.messages.turn_reader import ROLE_KEYS, ReadTurn, TurnReader

_REASONING = "reasoning_content"
_OF_CALLS = frozenset({"role", "content", "tool_calls", _REASONING})


def read_messages(value: Any, column: str, reader: TurnReader, forms: Callable[[], TemplateForms]) -> list[Message]:
    """Read a conversation: a list of turns, JSON text of one, one turn, lists of roles and of contents, or pairs of a
    question and an answer.

    Args:
        value: the value of the column.
        column: its name, for errors.
        reader: reads the turns.
        forms: tells what the template can write.

    Raises:
        RowError: the value or one of its turns is not understood.
    """
    return [message for turn in read_turns(value, column, reader, forms) for message in turn]


def read_turns(value: Any, column: str, reader: TurnReader, forms: Callable[[], TemplateForms]) -> list[list[Message]]:
    """Read a conversation as `read_messages`; return the messages of each turn. A call that continues an answer is
    part of the message of the turn before.
    """
    turns: list[list[Message]] = []
    for index, turn in enumerate(turns_of(value, column)):
        try:
            read = reader.read(turn, forms)
        except RowError as error:
            raise type(error)(f"message {index} of column {column!r}: {error}") from None
        if turns and turns[-1] and _continues(turns[-1][-1], read):
            turns[-1][-1] = _merged(turns[-1][-1], read.messages[0])
        else:
            turns.append(read.messages)
    return turns


def turns_of(value: Any, column: str) -> list[Any]:
    """Return the turns of a conversation, as they are.

    Raises:
        RowError: the value is not understood.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = parse_json(value, f"column {column!r}")
    if isinstance(value, dict) and any(value.get(key) is not None for key in ROLE_KEYS):
        value = _transposed(value, column) if any(isinstance(value.get(key), list) for key in ROLE_KEYS) else [value]
    if not isinstance(value, list) or not value:
        raise RowError(f"column {column!r} must hold a list of messages, not {type_name(value)}")
    if all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in value):
        return [
            {"role": role, "content": text}
            for pair in value
            for role, text in zip((USER, ASSISTANT), pair, strict=True)
        ]
    if all(isinstance(turn, str) and not turn.lstrip().startswith("{") for turn in value):
        raise RowError(
            f"column {column!r} must hold a list of messages, not of texts, which do not say whose they are; make "
            "messages with a role and a content of them"
        )
    return value


def _transposed(lists: Mapping[str, Any], column: str) -> list[Message]:
    """Return the messages of an object with a list for each key, as `datasets` stores a `Sequence` of objects.

    Raises:
        RowError: its lists differ in length.
    """
    values = [each if isinstance(each, list) else [] for each in lists.values() if each is not None]
    if len({len(each) for each in values}) > 1:
        raise RowError(f"column {column!r}: its lists of {' and '.join(map(repr, lists))} differ in length")
    keys = [key for key, each in lists.items() if each is not None]
    return [
        {key: item for key, item in zip(keys, items, strict=True) if item is not None}
        for items in zip(*values, strict=True)
    ]


def _continues(previous: Message, turn: ReadTurn) -> bool:
    """Return whether a turn is a call in the answer before it: the model writes its text and all calls at once."""
    if not turn.is_call or previous["role"] != ASSISTANT or (previous.get("content") and turn.messages[0]["content"]):
        return False
    [call] = turn.messages
    if _REASONING in call and (previous.get("content") or "tool_calls" in previous or _REASONING in previous):
        return False
    return _other_keys(previous) == _other_keys(call)


def _merged(answer: Message, call: Message) -> Message:
    calls = [*(answer.get("tool_calls") or ()), *call["tool_calls"]]
    reasoning = {_REASONING: call[_REASONING]} if _REASONING in call else {}
    return {**answer, "content": answer.get("content") or call["content"], **reasoning, "tool_calls": calls}


def _other_keys(message: Message) -> Message:
    return {key: value for key, value in message.items() if key not in _OF_CALLS and value is not None}
