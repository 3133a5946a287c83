"""Reads texts and turns from the columns of a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sftkit.core.message_fields import LOSS_FLAGS
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.base import missing_column_message
from sftkit.handlers.formats.row_format import is_filled
from sftkit.handlers.messages.system_prompts import SYSTEM_COLUMNS, parse_system
from sftkit.handlers.messages.tool_calls import parse_json, type_name

Message = dict[str, Any]

MESSAGE_TYPES = (list, dict)
"""Types of values that are messages, not text."""


class EmptyAnswerError(RowError):
    """An answer is null or empty: there is nothing to train."""


def text_of(value: Any, column: str) -> str:
    """Return a value as text. A number is written as JSON writes it, so that `{"answer": 42}` answers "42".

    Raises:
        RowError: it is neither text nor a number.

    Example:
        >>> text_of("a", "answer"), text_of(42, "answer"), text_of(0.5, "answer")
        ('a', '42', '0.5')
        >>> text_of(True, "answer")
        Traceback (most recent call last):
        sftkit.core.row_log.RowError: column 'answer' must be text, not bool
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise RowError(f"column {column!r} must be text, not {type_name(value)}")


def optional_text(row: Row, column: str) -> str:
    """Return the text of a column, "" if it is missing, null or empty."""
    value = row.get(column)
    return text_of(value, column) if is_filled(value) else ""


def answer_in(row: Row, column: str) -> Any:
    """Return the value of a column with an answer, text or messages.

    Raises:
        RowError: it is missing.
        EmptyAnswerError: it is null or empty.
    """
    if column not in row:
        raise RowError(missing_column_message(column, row))
    value = row[column]
    if not is_filled(value):
        raise EmptyAnswerError(f"column {column!r} is {'null' if value is None else 'empty'} where an answer should be")
    if isinstance(value, MESSAGE_TYPES):
        return value
    text = text_of(value, column)
    if not text.strip():
        raise EmptyAnswerError(f"column {column!r} is empty where an answer should be")
    return text


def turns_of(value: Any, role: str, column: str) -> list[Message]:
    """Return the messages in a column: text is one message of a role; a list or an object are messages.

    Raises:
        RowError: it is something else.
    """
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list):
        if not all(isinstance(turn, dict) for turn in value):
            raise RowError(f"column {column!r} must be text or a list of messages")
        return list(value)
    return [{"role": role, "content": text_of(value, column)}]


def history_of(row: Row, column: str) -> list[Message]:
    """Return the earlier turns of a row: pairs of a question and an answer, or messages; also as JSON text.

    Raises:
        RowError: the column holds something else.
    """
    value = row.get(column)
    if value is None or not is_filled(value):
        return []
    value = parse_json(value, f"column {column!r}")
    if not isinstance(value, list):
        raise RowError(f"column {column!r} must be a list of pairs, not {type_name(value)}")
    turns: list[Message] = []
    for index, turn in enumerate(value):
        if isinstance(turn, dict) and ("role" in turn or "from" in turn):
            turns.append(turn)
        elif isinstance(turn, Sequence) and not isinstance(turn, str) and len(turn) == 2:
            texts = [text_of(text, f"{column}[{index}]") for text in turn]
            turns += ({"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True))
        else:
            raise RowError(f"turn {index} of column {column!r} must be a pair of a question and an answer")
    return turns


def system_of(row: Row) -> str:
    """Return the system prompt of a row, "" if it has none.

    Raises:
        RowError: it is not text.
    """
    for column in SYSTEM_COLUMNS:
        if column in row and is_filled(row[column]):
            try:
                return parse_system(row[column])
            except RowError as error:
                raise RowError(f"column {column!r} {error}") from None
    return ""


def has_system_turn(conversation: Any) -> bool:
    """Whether a conversation, a list or JSON text of one, has a system prompt among its turns."""
    if isinstance(conversation, str):
        try:
            conversation = json.loads(conversation)
        except (ValueError, RecursionError):
            return False
    return isinstance(conversation, list) and any(isinstance(turn, dict) and is_system(turn) for turn in conversation)


def system_column_used(row: Row, turns: Sequence[Message]) -> tuple[str, ...]:
    """Return the column with the system prompt that `with_system_turn` adds to some turns."""
    if any(map(is_system, turns)):
        return ()
    return tuple(column for column in SYSTEM_COLUMNS if optional_text(row, column))[:1]


def with_system_turn(row: Row, turns: list[Message]) -> list[Message]:
    """Return the turns, after a turn with the system prompt of the row if they have none."""
    text = system_of(row)
    if not text or any(map(is_system, turns)):
        return turns
    return [{"role": "system", "content": text}, *turns]


def role_of(turn: Message) -> object:
    """Return the role of a message, with those of ShareGPT under their usual names."""
    role = turn.get("role") or turn.get("from")
    return {"human": "user", "gpt": "assistant"}.get(role, role) if isinstance(role, str) else role


def is_system(turn: Message) -> bool:
    """Whether a message is a system prompt."""
    return role_of(turn) in ("system", "developer")


def without_loss(turn: Message) -> Message:
    """Exclude an assistant's message from the loss; other messages never carry one."""
    if role_of(turn) in ("user", "tool") or is_system(turn):
        return turn
    return {**{key: value for key, value in turn.items() if key not in LOSS_FLAGS}, "train": False}
