"""Recognizes the format of a row by its columns and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.base import missing_column_message
from sftkit.handlers.formats.alpaca import Alpaca
from sftkit.handlers.formats.exchanges import Exchange
from sftkit.handlers.formats.input_output import InputOutput
from sftkit.handlers.formats.message_lists import CONVERSATION_COLUMNS, MessageList
from sftkit.handlers.formats.preferences import ANSWERS, REJECTED, Preference
from sftkit.handlers.formats.prompt_completion import COMPLETION, PROMPT, PromptCompletion
from sftkit.handlers.formats.row_format import RowFormat, is_filled

FORMATS: tuple[RowFormat, ...] = (
    Preference(),
    MessageList(),
    Alpaca("alpaca", "instruction", ("output", "response", "answer", "completion"), ("input", "context")),
    PromptCompletion(),
    Exchange("prompt_response", "prompt", ("response", "answer", "output")),
    Exchange("query_response", "query", ("response", "answer", "output", "completion")),
    Exchange("question_answer", "question", ("answer", "response", "output", "completion"), ("context",)),
    InputOutput("input_output", "input", ("output", "completion")),
)
"""The formats in order of precedence: the first that fits a row is its format."""

NAMED_FORMATS: Mapping[str, RowFormat] = MappingProxyType(
    {each.name: each for each in FORMATS if not isinstance(each, Preference)}
)
"""The formats that a config can name."""


_ASKING = ("instruction", "input", "context", "query", "question", "history")
"""Columns that belong to a question. (System prompts are read for all formats.)"""


def recognize(row: Row) -> RowFormat | None:
    """Return the format of a row; None if no format is known to have its columns.

    A format fits if the columns that it needs are filled. If none fits, the first counts whose columns are there: its
    conversion says what is missing.

    Example:
        >>> recognize({"instruction": "Add", "input": "1 2", "output": "3"}).name
        'alpaca'
        >>> recognize({"question": "1 + 2?", "answer": None}).name
        'question_answer'
        >>> recognize({"a": 1}) is None
        True
    """
    return fitting_format(row) or format_with_columns(row)


def fitting_format(row: Row) -> RowFormat | None:
    """Return the first format that fits a row."""
    for each in FORMATS:
        if each.fits(row):
            return each
    return None


def format_with_columns(row: Row) -> RowFormat | None:
    """Return the first format whose columns a row has, whatever is in them."""
    return next((each for each in FORMATS if each.has_columns(row)), None)


def format_of(row: Row) -> RowFormat:
    """Return the format of a row.

    Raises:
        RowError: its columns are those of no format.
    """
    found = recognize(row)
    if found is None:
        raise RowError(f"no known format has its columns: {', '.join(row) or 'none'}")
    return found


def check_nothing_is_left(row: Row, found: RowFormat) -> None:
    """Check that a row has no question or earlier turns outside of its format.

    Raises:
        RowError: it has: what the row is to become is not clear.
    """
    left = next((name for name in _ASKING if name not in found.columns and is_filled(row.get(name))), None)
    if left is not None:
        raise RowError(
            f"column {left!r} does not belong to the format {found.name}; set `format`, or remove the column"
        )


def with_answer(row: Row, column: str) -> Row:
    """Return a row without other answers than that in a column, which becomes its `completion`.

    If the row has a conversation, too, the answer continues it.

    Example:
        >>> with_answer({"prompt": "1 + 2?", "chosen": "3", "rejected": "4"}, "chosen")
        {'prompt': '1 + 2?', 'completion': '3'}

    Raises:
        RowError: the row does not have the column.
    """
    if column not in row:
        raise RowError(missing_column_message(column, row))
    others = {name: value for name, value in row.items() if name not in (*ANSWERS, *REJECTED, column)}
    conversation = next((name for name in CONVERSATION_COLUMNS if is_filled(row.get(name))), None)
    if conversation is not None:
        del others[conversation]
        return {**others, PROMPT: row[conversation], COMPLETION: row[column]}
    return {**others, COMPLETION: row[column]}
