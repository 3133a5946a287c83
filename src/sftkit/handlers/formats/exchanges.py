"""Formats with the question and the answer in columns of their own: Alpaca, query/response, question/answer."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.formats.row_format import MESSAGES, NeedsTemplateError, RowFormat, filled_columns, is_filled
from sftkit.handlers.formats.values import (
    MESSAGE_TYPES,
    answer_in,
    history_of,
    optional_text,
    system_column_used,
    system_of,
    turns_of,
    with_system_turn,
    without_loss,
)
from sftkit.handlers.messages.system_prompts import SYSTEM_COLUMNS

HISTORY = "history"

_SPACE = (" ", "\n", "\t")


@dataclass(frozen=True)
class Exchange(RowFormat):
    """A question, an answer, and possibly a context, a system prompt and earlier turns, each in its column."""

    name: str
    question: str
    """Column with the question; it may hold messages, too, which then carry no loss."""
    answers: tuple[str, ...]
    """Columns that may hold the answer. A row has one of them."""
    contexts: tuple[str, ...] = ()
    """Columns that may hold more of the question, which follows it on a new line."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the question and the answer, and those of what comes before."""
        return (self.question, *self.contexts, *self.answers, *SYSTEM_COLUMNS, HISTORY)

    def columns_of_messages(self, row: Row) -> tuple[str, ...]:
        """The question with its context, the answer, what comes before, and the system prompt unless that has one."""
        value, turns = row.get(self.question), history_of(row, HISTORY)
        is_text = not isinstance(value, list | dict)
        if not is_text:
            turns = [*turns, *turns_of(value, "user", self.question)]
        contexts = self.contexts if is_text else ()
        return (self.question, *contexts, self.answer_column(row), HISTORY, *system_column_used(row, turns))

    def columns_of_pair(self, row: Row) -> tuple[str, ...]:
        """The same, and the system prompt."""
        return (*self.columns_of_messages(row), *system_column_used(row, ()))

    def fits(self, row: Row) -> bool:
        """Whether there is a question and an answer; a question may be all in its context."""
        if self.question not in row or not filled_columns(row, self.answers):
            return False
        return is_filled(row[self.question]) or bool(filled_columns(row, self.contexts))

    def has_columns(self, row: Row) -> bool:
        """Whether there are columns for both."""
        return self.question in row and any(column in row for column in self.answers)

    def to_messages(self, row: Row) -> Row:
        """Make a conversation that ends with the answer."""
        value = row.get(self.question)
        column = self.answer_column(row)
        answer = turns_of(answer_in(row, column), "assistant", column)
        if isinstance(value, MESSAGE_TYPES) and is_filled(value):
            asked = [without_loss(turn) for turn in turns_of(value, "user", self.question)]
        else:
            asked = [{"role": "user", "content": self.question_text(row)}]
        turns = [*history_of(row, HISTORY), *asked, *answer]
        return {**row, MESSAGES: with_system_turn(row, turns)}

    def to_pair(self, row: Row) -> tuple[str, str]:
        """Return everything before the answer, line by line, and the answer, with a space before it."""
        answer = self.answer_text(row)
        before = [system_of(row), *(str(turn.get("content", "")) for turn in history_of(row, HISTORY))]
        text = "\n".join([*filter(None, before), self.question_text(row)])
        return text, after_space(text, answer)

    def question_text(self, row: Row) -> str:
        """Return the question and its context.

        Raises:
            RowError: there is none: an answer alone is not to be trained.
        """
        if isinstance(row.get(self.question), MESSAGE_TYPES):
            raise NeedsTemplateError
        parts = [optional_text(row, column) for column in (self.question, *self.contexts)]
        text = "\n".join(filter(None, parts))
        if not text:
            raise RowError(f"column {self.question!r} is null or empty where the question of an answer should be")
        return text

    def answer_text(self, row: Row) -> str:
        """Return the answer.

        Raises:
            RowError: it is missing, empty, or not text.
        """
        column = self.answer_column(row)
        answer = answer_in(row, column)
        if not isinstance(answer, str):
            raise NeedsTemplateError
        return answer

    def answer_column(self, row: Row) -> str:
        """Return the column with the answer: the only one that is filled.

        Raises:
            RowError: several are.
        """
        found = filled_columns(row, self.answers)
        if len(found) > 1:
            raise RowError(
                f"{' and '.join(map(repr, found))} are answers; name the one to train with output_field_name (in a "
                "data config: answer_column)"
            )
        return found[0] if found else next((column for column in self.answers if column in row), self.answers[0])


def after_space(text: str, answer: str) -> str:
    """Return an answer with a space before it, unless there is white space between it and the text before.

    Example:
        >>> after_space("Label:", "yes"), after_space("Label: ", "yes")
        (' yes', 'yes')
    """
    return answer if text.endswith(_SPACE) or answer.startswith(_SPACE) else f" {answer}"
