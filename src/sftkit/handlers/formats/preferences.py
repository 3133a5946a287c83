"""Preference rows: a chosen and a rejected answer. They are refused, with the way to train the chosen one."""

from __future__ import annotations

import json

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.formats.message_lists import CONVERSATION_COLUMNS
from sftkit.handlers.formats.row_format import RowFormat, is_filled
from sftkit.handlers.formats.values import is_system, role_of

CHOSEN = "chosen"
REJECTED = ("rejected", "rejected_response", "rejected_messages")

ANSWERS = ("chosen", "completion", "output", "response", "answer")
"""Columns that may hold the preferred answer."""

_HUMAN = "\n\nHuman:"
_ASSISTANT = "\n\nAssistant:"


class Preference(RowFormat):
    """Two answers, of which one is preferred."""

    name = "preference"
    columns = (CHOSEN, *REJECTED)

    def fits(self, row: Row) -> bool:
        """Whether there is a rejected answer."""
        return any(is_filled(row.get(column)) for column in REJECTED)

    def has_columns(self, row: Row) -> bool:
        """Whether there are columns for both."""
        return CHOSEN in row and any(column in row for column in REJECTED)

    def to_messages(self, row: Row) -> Row:
        """Refuse the row.

        Raises:
            RowError: always; the message says how to train the preferred answer.
        """
        raise RowError(self.refusal(row))

    def to_pair(self, row: Row) -> tuple[str, str]:
        """Refuse the row; raises as `to_messages`."""
        raise RowError(self.refusal(row))

    def refusal(self, row: Row) -> str:
        """Say why the row is refused, and how to train its preferred answer."""
        return f"rows have a preferred and a rejected answer; {_remedy(row)}"


def _remedy(row: Row) -> str:
    """Say how to train the preferred answer of rows such as this one."""
    chosen = row.get(CHOSEN)
    if isinstance(chosen, list) and chosen and isinstance(chosen[0], dict):
        if role_of(chosen[0]) == "user" or is_system(chosen[0]):
            return _naming("dataset_conversation_field", "conversation_column", CHOSEN)
    elif isinstance(chosen, str) and _HUMAN in chosen and _ASSISTANT in chosen:
        return (
            f"to train the preferred one, set in a --config file dataset_text_field: {CHOSEN}, response_template: "
            f"{json.dumps(_ASSISTANT)} and instruction_template: {json.dumps(_HUMAN)}"
        )
    conversation = next((name for name in CONVERSATION_COLUMNS if is_filled(row.get(name))), None)
    if conversation and not is_filled(chosen):
        return _naming("dataset_conversation_field", "conversation_column", conversation)
    answer = next((name for name in ANSWERS if is_filled(row.get(name))), CHOSEN)
    return _naming("output_field_name", "answer_column", answer)


def _naming(option: str, argument: str, column: str) -> str:
    return (
        f"to train the preferred one, set {option}: {column} (in a data config: {argument}: {column} of "
        "convert_to_messages)"
    )
