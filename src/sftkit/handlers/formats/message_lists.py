"""Formats with the whole conversation in one column."""

from __future__ import annotations

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.base import missing_column_message
from sftkit.handlers.formats.row_format import MESSAGES, RowFormat, is_filled
from sftkit.handlers.tool_calls import type_name

CONVERSATION_COLUMNS = ("messages", "conversations", "conversation")
"""Columns that may hold the conversation when the config names none, in order of preference."""


class MessageList(RowFormat):
    """A list of messages, as of OpenAI (`role`, `content`) and ShareGPT (`from`, `value`)."""

    name = "messages"
    columns = CONVERSATION_COLUMNS

    def fits(self, row: Row) -> bool:
        """Whether a column holds a conversation."""
        return any(is_filled(row.get(column)) for column in CONVERSATION_COLUMNS)

    def has_columns(self, row: Row) -> bool:
        """Whether there is a column for it."""
        return any(column in row for column in CONVERSATION_COLUMNS)

    def to_messages(self, row: Row) -> Row:
        """Move the conversation to `messages`."""
        column = next((name for name in CONVERSATION_COLUMNS if is_filled(row.get(name))), None)
        if column is None:
            named = next((name for name in CONVERSATION_COLUMNS if name in row), None)
            if named is None:
                raise RowError(missing_column_message(MESSAGES, row))
            raise RowError(f"column {named!r} must hold a list of messages, not {type_name(row[named])}")
        return row if column == MESSAGES else {**row, MESSAGES: row[column]}
