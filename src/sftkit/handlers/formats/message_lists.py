"""Formats with the whole conversation in one column."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.base import missing_column_message
from sftkit.handlers.formats.row_format import MESSAGES, RowFormat, is_filled
from sftkit.handlers.messages.tool_calls import parse_json, type_name
from sftkit.handlers.messages.turn_reader import ROLE_KEYS

CONVERSATION_COLUMNS = ("messages", "conversations", "conversation")
"""Columns that may hold the conversation when the config names none, in order of preference."""

OTHER_COLUMNS = ("contents", "chat", "turns", "dialogue", "dialog")
"""Columns that may hold one, too, if they hold messages: Gemini's, and names that also stand for something else."""


def conversation_column(row: Row) -> str | None:
    """Return the column that holds the conversation; None if there is none.

    Example:
        >>> conversation_column({"chat": [{"role": "user", "content": "hi"}]}), conversation_column({"chat": 5})
        ('chat', None)
    """
    for column in CONVERSATION_COLUMNS:
        if row.get(column) is not None:
            return column
    return next((column for column in OTHER_COLUMNS if column in row and _are_messages(row[column])), None)


def _are_messages(value: Any) -> bool:
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(RowError):
            value = parse_json(value, "it")
    return isinstance(value, list) and any(
        isinstance(turn, dict) and any(isinstance(turn.get(key), str) for key in ROLE_KEYS) for turn in value
    )


class MessageList(RowFormat):
    """A list of messages, as of OpenAI (`role`, `content`) and ShareGPT (`from`, `value`)."""

    name = "messages"
    columns = (*CONVERSATION_COLUMNS, *OTHER_COLUMNS)

    def columns_of_messages(self, row: Row) -> tuple[str, ...]:
        """The first column that holds a conversation."""
        column = next((name for name in CONVERSATION_COLUMNS if is_filled(row.get(name))), conversation_column(row))
        return () if column is None else (column,)

    def fits(self, row: Row) -> bool:
        """Whether a column holds a conversation."""
        return (
            any(is_filled(row.get(column)) for column in CONVERSATION_COLUMNS) or conversation_column(row) is not None
        )

    def has_columns(self, row: Row) -> bool:
        """Whether there is a column for it."""
        return any(column in row for column in CONVERSATION_COLUMNS)

    def to_messages(self, row: Row) -> Row:
        """Move the conversation to `messages`."""
        column = next((name for name in CONVERSATION_COLUMNS if is_filled(row.get(name))), None)
        column = column or conversation_column({name: row[name] for name in OTHER_COLUMNS if name in row})
        if column is None:
            named = next((name for name in CONVERSATION_COLUMNS if name in row), None)
            if named is None:
                raise RowError(missing_column_message(MESSAGES, row))
            raise RowError(f"column {named!r} must hold a list of messages, not {type_name(row[named])}")
        return row if column == MESSAGES else {**row, MESSAGES: row[column]}
