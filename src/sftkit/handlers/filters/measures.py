"""What filters measure of a row: messages, characters and tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sftkit.core.message_fields import REASONING_FIELDS
from sftkit.core.row_log import RowError
from sftkit.core.rows import INPUT_IDS, LABELS, Batch, Ragged, Row, trained_mask
from sftkit.handlers.base import missing_column_message
from sftkit.handlers.formats.message_lists import CONVERSATION_COLUMNS, OTHER_COLUMNS, conversation_column
from sftkit.handlers.messages.conversation_values import turns_of
from sftkit.handlers.messages.parts import are_media
from sftkit.handlers.messages.roles import ASSISTANT, CALL, STANDARD_ROLES, known_role
from sftkit.handlers.messages.tool_calls import type_name
from sftkit.handlers.messages.turn_reader import CONTENT_KEYS, ROLE_KEYS, first_of

TOKENS, TRAINED_TOKENS = "tokens", "trained_tokens"
TURNS, CHARACTERS, ANSWER_CHARACTERS, ROLES = "turns", "characters", "answer_characters", "roles"

OF_TOKENS: Mapping[str, str] = MappingProxyType({TOKENS: INPUT_IDS, TRAINED_TOKENS: LABELS})
"""Measures of tokens, and the column that each needs."""

OF_CONVERSATIONS = frozenset({TURNS, CHARACTERS, ANSWER_CHARACTERS, ROLES})
"""Measures of conversations: the fields of `ConversationMeasures`."""

_CALLS = ("tool_calls", "function_call")
_PART_TEXTS = ("value", "text", "thinking", "reasoning")


class ConversationMeasures(NamedTuple):
    """The size of a conversation."""

    turns: int
    """Messages, the system prompt included."""
    characters: int
    """Characters of all contents, reasoning and tool calls (as JSON)."""
    answer_characters: int
    """Those of the assistant's messages."""
    roles: Mapping[str, int]
    """Messages of each role: `system`, `developer`, `user`, `assistant`, `tool`, and others that the row has."""


def columns_to_measure(named: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns that `measure_conversation` needs, and those of which it takes the first that a row has."""
    return ((named,), ()) if named else ((), (*CONVERSATION_COLUMNS, *OTHER_COLUMNS))


def measure_conversation(row: Row, column: str | None) -> ConversationMeasures:
    """Measure the conversation of a row, in any form that `convert_to_messages` reads.

    Args:
        row: the row.
        column: the column that holds it; None for the first that does.

    Raises:
        RowError: there is no conversation.

    Example:
        >>> row = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
        >>> found = measure_conversation(row, None)
        >>> found.turns, found.characters, found.answer_characters, found.roles["user"]
        (2, 7, 5, 1)
    """
    found = column or conversation_column(row)
    if found is None:
        raise RowError(f"no column holds a conversation to measure; columns here: {', '.join(row) or 'none'}")
    if found not in row:
        raise RowError(missing_column_message(found, row))
    roles, all_characters, answer_characters = dict.fromkeys(sorted(STANDARD_ROLES), 0), 0, 0
    turns = turns_of(row[found], found)
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise RowError(f"message {index} of column {found!r} must be an object, not {type_name(turn)}")
        role, characters = _role(turn), _characters_of_turn(turn)
        roles[role] = roles.get(role, 0) + 1
        all_characters += characters
        answer_characters += characters if role == ASSISTANT else 0
    return ConversationMeasures(len(turns), all_characters, answer_characters, roles)


def token_measure(name: str, batch: Batch) -> Callable[[int, Row], int]:
    """Return a function that measures the tokens of a row of a batch, given its index and the row.

    Rows have their tokens as arrays of the batch, or in lists of their own. It raises `RowError` where there are none.

    Args:
        name: one of `OF_TOKENS`.
        batch: the rows.
    """
    column = OF_TOKENS[name]
    if column in batch.tokens:
        counts = _counts(name, batch.tokens[column])
        return lambda index, row: counts[index]

    def count(index: int, row: Row) -> int:
        values = row.get(column)
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            raise RowError(f"column {column!r} must be a list of whole numbers to measure {name}")
        return _counts(name, Ragged.from_lists([values]))[0]

    return count


def _counts(name: str, column: Ragged) -> list[int]:
    counted = column.lengths if name == TOKENS else column.count_per_row(trained_mask(column))
    counts: list[int] = counted.tolist()
    return counts


def _role(turn: Row) -> str:
    name = turn.get(first_of(turn, *ROLE_KEYS))
    role = known_role(name) if isinstance(name, str) else None
    return ASSISTANT if role == CALL else role or str(name)


def _characters_of_turn(turn: Row) -> int:
    calls = [_json_text(turn[key]) for key in _CALLS if turn.get(key)]
    texts = [turn.get(first_of(turn, *CONTENT_KEYS)), *(turn.get(key) for key in REASONING_FIELDS)]
    return sum(map(len, calls)) + sum(map(_characters, texts))


def _characters(value: Any) -> int:
    """Count the characters of a text, of the texts of parts, or of anything else as JSON; media have none."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_characters, value))
    if value is None:
        return 0
    if isinstance(value, dict):
        texts = [value[key] for key in _PART_TEXTS if isinstance(value.get(key), str)]
        if texts or are_media([value]):
            return len(texts[0]) if texts else 0
    return len(_json_text(value))


def _json_text(value: Any) -> str:
    """Return a value as JSON; a text is taken as JSON already."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
