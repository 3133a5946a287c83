"""The prompt/completion format of TRL: texts, or lists of messages."""

from __future__ import annotations

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.formats.row_format import MESSAGES, RowFormat, is_filled
from sftkit.handlers.formats.values import (
    MESSAGE_TYPES,
    answer_in,
    is_system,
    role_of,
    system_column_used,
    text_of,
    turns_of,
    with_system_turn,
    without_loss,
)
from sftkit.handlers.messages.system_prompts import SYSTEM_COLUMNS

PROMPT, COMPLETION = "prompt", "completion"


class PromptCompletion(RowFormat):
    """A prompt and its completion. Only the completion is trained.

    Two texts are plain text, as in TRL: they are concatenated without a space, and get no chat template.
    """

    name = "prompt_completion"
    columns = (PROMPT, COMPLETION, *SYSTEM_COLUMNS)

    def columns_of_messages(self, row: Row) -> tuple[str, ...]:
        """Both, and the system prompt unless the prompt has one."""
        turns = turns_of(row.get(PROMPT), "user", PROMPT)
        return (PROMPT, COMPLETION, *system_column_used(row, turns))

    def columns_of_pair(self, row: Row) -> tuple[str, ...]:
        """Both."""
        return (PROMPT, COMPLETION)

    def fits(self, row: Row) -> bool:
        """Whether there is a completion, and a prompt, which may be an empty text."""
        prompt = row.get(PROMPT)
        return is_filled(row.get(COMPLETION)) and (is_filled(prompt) or prompt == "")

    def has_columns(self, row: Row) -> bool:
        """Whether there are columns for both."""
        return PROMPT in row and COMPLETION in row

    def is_pair(self, row: Row) -> bool:
        """Whether both are texts."""
        return isinstance(row.get(PROMPT), str) and isinstance(row.get(COMPLETION), str)

    def to_messages(self, row: Row) -> Row:
        """Join the messages of both; those of the prompt carry no loss."""
        answer = answer_in(row, COMPLETION)
        prompt = row.get(PROMPT)
        if not is_filled(prompt):
            raise RowError(f"column {PROMPT!r} is null or empty where the question of an answer should be")
        asked = [without_loss(turn) for turn in turns_of(prompt, "user", PROMPT)]
        answered = turns_of(answer, "assistant", COMPLETION)
        if role_of(answered[0]) == "user" or is_system(answered[0]):
            raise RowError(
                f"column {COMPLETION!r} holds a whole conversation; set dataset_conversation_field (in a data config: "
                "conversation_column) to the column that holds it"
            )
        return {**row, MESSAGES: with_system_turn(row, [*asked, *answered])}

    def to_pair(self, row: Row) -> tuple[str, str]:
        """Return both texts."""
        answer = answer_in(row, COMPLETION)
        if isinstance(answer, MESSAGE_TYPES) or isinstance(row.get(PROMPT), MESSAGE_TYPES):
            return super().to_pair(row)
        return text_of(row.get(PROMPT), PROMPT), text_of(answer, COMPLETION)
