"""Reads the conversation of a row as the chat template of a tokenizer takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.sandbox.template_variables import keys_of_variable, variables_of
from sftkit.tokenization.conversations import Conversation, Message, read_conversation
from sftkit.tokenization.masking.ranges.train_ranges import with_ranges_of_parts
from sftkit.tokenization.probing.content_format import ContentFormatAdapter
from sftkit.tokenization.probing.message_forms import MessageFormAdapter
from sftkit.tokenization.probing.written_forms import WrittenForms
from sftkit.tokenization.templates.template_analysis import MESSAGES, takes_whole_row
from sftkit.tokenization.tokenizer_engines import TokenizerEngines

CONVERSATION_COLUMNS = ("messages", "conversations", "conversation", "chat", "turns")
"""Columns in which messages are looked for where none is named."""

_TEMPLATE_COLUMNS = ("tools", "documents")
_VARIABLES = "chat_template_kwargs"


class ConversationReader:
    """Reads conversations of rows, each in a column or in the whole row, for the template of some engines.

    The tokenizer is loaded when a conversation is first adapted to its template.
    """

    def __init__(self, engines: TokenizerEngines, variables: Mapping[str, Any]) -> None:
        """Prepare for a template, which gets some variables beside those that a row sets."""
        self._engines = engines
        self._variables = variables
        self._takes_whole_row: dict[str, bool] = {}

    def template_columns(self, column: str | None) -> frozenset[str] | None:
        """Return the columns that the template takes, besides the conversation in `column`, where rows have them.

        `tools` and `documents` are among them only if the template uses them. None means that it may take any column.

        Raises:
            TokenizerError: there is no template.
        """
        sources = [self._engines.reference_renderer.source(with_tools=each) for each in (False, True)]
        used = variables_of(sources[0]) | variables_of(sources[1])
        columns = frozenset(name for name in _TEMPLATE_COLUMNS if name in used) | {_VARIABLES}
        if column is not None and not any(map(takes_whole_row, sources)):
            return columns
        keys = [keys_of_variable(source, MESSAGES) for source in sources]
        return None if None in keys else columns.union(*(each for each in keys if each is not None))

    def found_template_columns(self) -> frozenset[str] | None:
        """Return the columns that are taken of a row whose conversation `find_column` finds; raises as the above."""
        columns = self.template_columns(CONVERSATION_COLUMNS[0])
        return None if columns is None else columns.union(CONVERSATION_COLUMNS)

    def read(self, row: Row, column: str | None) -> Conversation:
        """Read the conversation as the row holds it.

        Raises:
            RowError: the row has no conversation.
        """
        return read_conversation(row, column, self._variables)

    def find_column(self, row: Row) -> str | None:
        """Return the first of `CONVERSATION_COLUMNS` that holds messages; None if the template takes the whole row.

        Raises:
            RowError: the row has no conversation.
        """
        column = next((name for name in CONVERSATION_COLUMNS if isinstance(row.get(name), list)), None)
        return None if column is None or self._wants_whole_row(self.read(row, column)) else column

    def read_for_template(self, row: Row, column: str | None) -> Conversation:
        """Read the conversation as the template takes it; raises as `read`."""
        return self.for_template(self.read(row, column), row, column)

    def for_template(self, conversation: Conversation, row: Row, column: str | None) -> Conversation:
        """Return the conversation that was read of a row as the template takes it.

        A template that takes a whole row as `messages` gets the whole row, even if `column` is given.

        Raises:
            RowError: the row has no conversation.
        """
        if column is not None and self._wants_whole_row(conversation):
            conversation = self.read(row, None)
        return self.adapt(conversation)

    def adapt(self, conversation: Conversation) -> Conversation:
        """Give messages the form that the template takes: their contents (text or parts), roles and tool calls."""
        return self._message_forms.adapt(self._content_format.adapt(with_ranges_of_parts(conversation)))

    def written_forms(self, *, with_tools: bool) -> WrittenForms | None:
        """Return what is known of the forms that the template writes; None if it takes whole rows.

        Raises:
            TokenizerError: there is no template.
        """
        if self._source_takes_whole_row(self._engines.reference_renderer.source(with_tools=with_tools)):
            return None
        return self._message_forms.forms(self._variables, with_tools=with_tools)

    @cached_property
    def _content_format(self) -> ContentFormatAdapter:
        return ContentFormatAdapter(self._engines.reference_renderer)

    @cached_property
    def _message_forms(self) -> MessageFormAdapter:
        return MessageFormAdapter(self._engines.reference_renderer)

    def _wants_whole_row(self, conversation: Conversation) -> bool:
        return self._source_takes_whole_row(
            self._engines.reference_renderer.source(with_tools=conversation.tools is not None)
        )

    def _source_takes_whole_row(self, source: str) -> bool:
        if source not in self._takes_whole_row:
            self._takes_whole_row[source] = takes_whole_row(source)
        return self._takes_whole_row[source]


def messages_of(conversation: Conversation) -> Sequence[Message]:
    """Return the messages of a conversation; none if it is a whole row in which no column is known to hold them."""
    if type(conversation.messages) is list:
        return conversation.messages
    with suppress(RowError):
        return conversation.message_list
    return ()
