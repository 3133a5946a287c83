"""Converts the conversation formats found in data sets to the messages that chat templates of transformers take."""

from __future__ import annotations

from collections.abc import Callable, Collection, KeysView, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from sftkit.config.fields import did_you_mean, option
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, TokenizerError
from sftkit.handlers.base import Step, missing_column_message
from sftkit.handlers.formats.format_handler import FormatHandler
from sftkit.handlers.formats.message_lists import conversation_column
from sftkit.handlers.formats.recognition import NAMED_FORMATS, check_nothing_is_left
from sftkit.handlers.formats.row_format import MESSAGES, RowFormat
from sftkit.handlers.formats.values import has_system_turn, system_of
from sftkit.handlers.messages.conversation_values import read_messages
from sftkit.handlers.messages.conversion_need import needs_conversion
from sftkit.handlers.messages.roles import DEVELOPER, ROLES, SYSTEM
from sftkit.handlers.messages.system_prompts import SYSTEM_COLUMNS, parse_system
from sftkit.handlers.messages.template_forms import NoTemplate, TemplateForms, WholeRowTemplate
from sftkit.handlers.messages.tool_use import ToolUse, read_tool_use
from sftkit.handlers.messages.tools import are_openai_tools, parse_tools
from sftkit.handlers.messages.turn_reader import TurnReader

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

TOOLS = "tools"
_FUNCTIONS = "functions"
_SYSTEM_COLUMN = "system"

_Forms = Callable[[], TemplateForms]


@dataclass(frozen=True, kw_only=True)
class ConvertToMessages(FormatHandler):
    """Converts rows of any known format to `messages`: those with the question and the answer in columns of their own
    (Alpaca and others), and conversations of ShareGPT (`from`/`value`, `function_call`, `observation`), ms-swift
    (`tool_call`), Anthropic (content blocks), Gemini (`contents`, `parts`) and older OpenAI data (`function_call`).
    Parses tool calls and `tools` into objects. Other keys of a message are kept.
    """

    registered_as = "convert_to_messages"

    conversation_column: str | None = option(
        None,
        help="Column that holds the conversation, a list or JSON text of one; by default the first of `messages`, "
        "`conversations`, `conversation`, `contents`, `chat`, `turns`, `dialogue` and `dialog`, or the columns of "
        "another format.",
    )
    messages_column: str = option(MESSAGES, help="Column the messages are written to.")
    system_column: str = option(
        _SYSTEM_COLUMN,
        help="Column whose text becomes the system turn, where there is none. The default also stands for "
        "`system_prompt`, `systemInstruction` and `system_instruction`.",
    )
    tools_column: str = option(
        TOOLS,
        help="Column that holds the tools, a list or JSON text of one; they are written to `tools`. The default also "
        "stands for `functions`.",
    )
    role_key: str | None = option(None, help="Key that holds the role; by default `role` or `from`.")
    content_key: str | None = option(
        None, help="Key that holds the content; by default `content`, `value`, `text`, `message` or `parts`."
    )
    roles: Mapping[str, str] = option(
        factory=dict, help="Role names in your data -> `user`, `assistant`, `system`, `tool` or `function_call`."
    )

    only_if_needed: bool = option(
        False, help="Leave a row alone whose messages the chat template can read as they are."
    )

    def reads(self) -> tuple[str, ...]:
        """The conversation column, if it is named."""
        return (self.conversation_column,) if self.conversation_column else ()

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """The system prompt, the tools, and the columns of the format if no column holds the conversation."""
        columns = () if self.conversation_column else super().may_read(tokenizer)
        return (*columns, *self._system_columns, *self._tools_columns)

    def columns_used(self, row: Row) -> frozenset[str] | None:
        """The conversation or the columns of the format, the tools, and a system prompt that becomes the first turn."""
        tools = next((name for name in self._tools_columns if row.get(name)), self.tools_column)
        system = [name for name in self._system_columns if row.get(name)][:1]
        column = self.conversation_column or (None if self._names_format else conversation_column(row))
        if column is not None:
            return frozenset({column, tools, *([] if has_system_turn(row.get(column)) else system)})
        used = super().columns_used(row)
        is_decided = used is not None and not used.isdisjoint(self._system_columns)
        return None if used is None else used | {tools, *([] if is_decided or system_of(row) else system)}

    def columns_of_format(self, found: RowFormat, row: Row) -> Collection[str]:
        """The columns of the messages."""
        return found.columns_of_messages(row)

    def content_goes_to(self, column: str, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """Tools stay tools; everything else becomes messages."""
        if column in self._tools_columns:
            return (TOOLS,)
        return (self.messages_column,) if column in (*self.reads(), *self.may_read(tokenizer)) else ()

    def writes(self) -> tuple[str, ...]:
        """The messages and the tools."""
        return (self.messages_column, TOOLS)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Convert each row."""
        for name, role in self.roles.items():
            if role not in ROLES:
                raise ConfigError(
                    f"convert_to_messages: roles.{name}: unknown role {role!r}{did_you_mean(role, ROLES)}"
                )
        reader = TurnReader(self.role_key, self.content_key, self.roles, keeps_written=self.only_if_needed)
        forms_of = template_forms(tokenizer)

        def convert(row: Row) -> Row:
            column = self.conversation_column or (None if self._names_format else conversation_column(row))
            is_given = column is not None
            if column is None:
                found, row = self.read_format(row)
                row, column = found.to_messages(row), MESSAGES
            elif self.conversation_column is None:
                check_nothing_is_left(row, NAMED_FORMATS[MESSAGES])
            if column not in row:
                raise RowError(missing_column_message(column, row))
            forms: _Forms = lambda: forms_of(bool(row.get(TOOLS)))  # noqa: E731  # rarely called
            if self.only_if_needed and is_given and not self._needs_conversion(row, column, forms):
                return {**row, self.messages_column: row[column]} if column != self.messages_column else row
            return self._convert(row, column, reader, forms)

        return self.converting(tokenizer, convert)

    @cached_property
    def _names_format(self) -> bool:
        return self.format is not None or self.answer_column is not None or bool(self.columns)

    def _needs_conversion(self, row: Row, column: str, forms: _Forms) -> bool:
        if needs_conversion(row[column], forms):
            return True
        if any(not are_openai_tools(row[name]) for name in self._tools_columns if row.get(name)):
            return True
        if row.get(_FUNCTIONS) and not row.get(TOOLS):
            return True
        return (
            not self._system_columns.isdisjoint(row)
            and isinstance(row[column], list)
            and bool(self._system_prompt(row, row[column]))
            and not isinstance(forms(), WholeRowTemplate)
        )

    def tool_use(self, row: Row) -> ToolUse | None:
        """Read the tool calls of a row before it is converted.

        Raises:
            MalformedCallError: as `read_tool_use`.
        """
        column = self.conversation_column or (None if self._names_format else conversation_column(row))
        if column is None:
            return None
        reader = TurnReader(self.role_key, self.content_key, self.roles, keeps_written=False)
        return read_tool_use(row, column, reader, self._tools_columns)

    def _convert(self, row: Row, column: str, reader: TurnReader, forms: _Forms) -> Row:
        messages = read_messages(row[column], column, reader, forms)
        system = self._system_prompt(row, messages)
        if system:
            messages.insert(0, {"role": SYSTEM, "content": system})
        converted = {**row, self.messages_column: messages}
        tools_column = next((name for name in self._tools_columns if row.get(name)), self.tools_column)
        if tools_column in row:
            try:
                converted[TOOLS] = parse_tools(row[tools_column])
            except RowError as error:
                raise RowError(f"column {tools_column!r}: {error}") from None
        return converted

    @property
    def _tools_columns(self) -> tuple[str, ...]:
        return (TOOLS, _FUNCTIONS) if self.tools_column == TOOLS else (self.tools_column,)

    @property
    def _system_columns(self) -> KeysView[str]:
        return SYSTEM_COLUMNS if self.system_column == _SYSTEM_COLUMN else {self.system_column: None}.keys()

    def _system_prompt(self, row: Row, messages: list[Any]) -> str | None:
        """Return the system prompt beside the messages, if there is none among them."""
        column = next((name for name in self._system_columns if row.get(name)), None)
        if column is None or any(message.get("role") in (SYSTEM, DEVELOPER) for message in messages):
            return None
        try:
            return parse_system(row[column])
        except RowError as error:
            raise RowError(f"column {column!r} {error}") from None


def template_forms(tokenizer: ChatTokenizer | None) -> Callable[[bool], TemplateForms]:
    """Return a function that tells what the chat template can write, of rows with or without tools."""
    if tokenizer is None:
        return lambda with_tools: NoTemplate()

    @cache
    def forms_of(with_tools: bool) -> TemplateForms:
        try:
            return tokenizer.written_forms(with_tools=with_tools) or WholeRowTemplate()
        except (ConfigError, TokenizerError):  # no tokenizer, or none with a template
            return NoTemplate()

    return forms_of
