"""Handlers that write or change a text column."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.config.fields import option
from sftkit.core.accounting.row_notes import RowNotes
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import RowError, RowLog
from sftkit.core.rows import Batch, Row
from sftkit.handlers.base import Handler, Step, map_rows, missing_column_message, row_step, text_in
from sftkit.handlers.messages.hints import with_conversion_hint

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

DEFAULT_TEXT_FIELD = "text"
"""The column of plain text that is found without being named."""

_PLACEHOLDER = re.compile(r"\{\{([\s0-9A-Za-z_\-.]+)\}\}")


@dataclass(frozen=True, kw_only=True)
class TextHandler(Handler):
    """Base of the handlers that write the text of a row into the column `dataset_text_field`."""

    dataset_text_field: str = option(help="Column the text is written to.")

    def produces(self) -> RowKind:
        """Text."""
        return RowKind.TEXT

    def writes(self) -> tuple[str, ...]:
        """The text column."""
        return (self.dataset_text_field,)

    def text_column(self) -> str:
        """The text column."""
        return self.dataset_text_field


@dataclass(frozen=True, kw_only=True)
class ApplyTokenizerChatTemplate(TextHandler):
    """Renders the row's conversation into a text column with the tokenizer's chat template."""

    registered_as = "apply_tokenizer_chat_template"

    conversation_column: str | None = option(
        None,
        help="Column that holds the messages. Default: messages, conversations, conversation, chat or turns, whichever "
        "is there first; a template that takes a whole row gets the row.",
    )

    def produces(self) -> RowKind:
        """Text of the chat template."""
        return RowKind.RENDERED

    def reads(self) -> tuple[str, ...]:
        """The conversation column, if it is named."""
        return (self.conversation_column,) if self.conversation_column else ()

    def may_read(self, tokenizer: ChatTokenizer) -> Collection[str] | None:
        """What the chat template takes of a row."""
        if self.conversation_column is None:
            return tokenizer.found_template_columns()
        return tokenizer.template_columns(self.conversation_column)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Render each row."""
        tokenizer.check_chat_template()

        def render(row: Row) -> tuple[Row, RowNotes]:
            column = self.conversation_column or tokenizer.find_conversation_column(row)
            text, notes = tokenizer.conversations.render_checked(row, column)
            return {**row, self.dataset_text_field: text}, notes

        render_or_hint = with_conversion_hint(render, self.conversation_column or "messages")

        def step(batch: Batch, log: RowLog) -> Batch:
            batch, rendered = map_rows(batch, log, render_or_hint)
            for number, (_, notes) in zip(batch.numbers.tolist(), rendered, strict=True):
                log.note(number, notes)
            return batch.with_rows([row for row, _ in rendered])

        return step


@dataclass(frozen=True, kw_only=True)
class ApplyCustomDataFormattingTemplate(TextHandler):
    """Puts columns into a text by `{{column}}`. Names may hold letters, digits, spaces, `_`, `-` and `.`."""

    registered_as = "apply_custom_data_formatting_template"

    template: str = option(help="The text, with `{{column}}` where a column's value goes.")
    add_eos_token: bool = option(True, help="End the text with the eos token.")

    def reads(self) -> tuple[str, ...]:
        """The columns that the template names."""
        return tuple(dict.fromkeys(name.strip() for name in _PLACEHOLDER.findall(self.template)))

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """No other column."""
        return ()

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Replace the placeholders for each row."""
        eos = tokenizer.eos_token if self.add_eos_token else ""

        def substitute(row: Row) -> Row:
            text = _PLACEHOLDER.sub(lambda match: _value_text(row, match[1].strip()), self.template)
            return {**row, self.dataset_text_field: text + eos}

        return row_step(substitute)


@dataclass(frozen=True, kw_only=True)
class AddTokenizerEosToken(TextHandler):
    """Appends the eos token to a text column."""

    registered_as = "add_tokenizer_eos_token"

    dataset_text_field: str = option(help="Column whose text gets the eos token.")
    only_if_missing: bool = option(False, help="Leave a text alone that ends with it already.")

    def reads(self) -> tuple[str, ...]:
        """The text column."""
        return (self.dataset_text_field,)

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """No other column."""
        return ()

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Append the token to each row."""
        eos = tokenizer.eos_token

        def append(row: Row) -> Row:
            text = text_in(row, self.dataset_text_field)
            is_closed = self.only_if_missing and text.rstrip().endswith(eos)
            return {**row, self.dataset_text_field: text if is_closed else text + eos}

        return row_step(append)


def has_only_placeholders(template: str, columns: Collection[str]) -> bool:
    """Whether a template has no more than `{{column}}`; else it is Jinja, such as one with `{{eos_token}}`.

    Example:
        >>> has_only_placeholders("{{a b}}: {{c}}", ["a b", "c"]), has_only_placeholders("{{c}}{{eos_token}}", ["c"])
        (True, False)
    """
    rest = _PLACEHOLDER.sub("", template)
    names = {name.strip() for name in _PLACEHOLDER.findall(template)} - set(columns)
    return "{{" not in rest and "{%" not in rest and not any(name.endswith("_token") for name in names)


def _value_text(row: Row, column: str) -> str:
    if column not in row:
        raise RowError(missing_column_message(column, row))
    value: Any = row[column]
    if value is None:
        raise RowError(f"column {column!r} is null where text should be")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
