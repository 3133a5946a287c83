"""Handlers that make or change a text column."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from sftkit.config.fields import option
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.errors import ConfigError
from sftkit.handlers.base import Handler, Step, Tools, missing_column_message, row_step, text_in
from sftkit.sandbox.render_limits import TemplateLimitError, render_within_limits
from sftkit.sandbox.template_check import check_template_operations

_PLACEHOLDER = re.compile(r"\{\{([\s0-9A-Za-z_\-.]+)\}\}")


@dataclass(frozen=True, kw_only=True)
class ApplyTokenizerChatTemplate(Handler):
    """Renders the row's conversation into a text column with the tokenizer's chat template."""

    dataset_text_field: str = option(help="Column the text is written to.")
    conversation_column: str | None = option(
        None, help="Column that holds the messages; without it the template gets the whole row."
    )

    def reads(self) -> tuple[str, ...]:
        """The conversation column, when there is one."""
        return (self.conversation_column,) if self.conversation_column else ()

    def writes(self) -> tuple[str, ...]:
        """The text column."""
        return (self.dataset_text_field,)

    def bind(self, tools: Tools) -> Step:
        """Render each row."""
        tools.check_chat_template()
        return row_step(lambda row: {**row, self.dataset_text_field: tools.render(row, self.conversation_column)})


@dataclass(frozen=True, kw_only=True)
class ApplyCustomJinjaTemplate(Handler):
    """Renders a Jinja template over the row's columns, sandboxed."""

    dataset_text_field: str = option(help="Column the text is written to.")
    template: str = option(help="The template; columns are its variables, and `element` is the whole row.")
    add_eos_token: bool = option(True, help="End the text with the eos token.")

    def writes(self) -> tuple[str, ...]:
        """The text column."""
        return (self.dataset_text_field,)

    def bind(self, tools: Tools) -> Step:
        """Compile the template once, render each row.

        Raises:
            ConfigError: it is not valid Jinja.
            TokenizerError: it takes too much (of a row: `TemplateLimitError`, from the step).
        """
        from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        eos = tools.eos_token if self.add_eos_token else ""
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        check_template_operations(self.template)
        try:
            template = render_within_limits(lambda: environment.from_string(self.template), self.template)
        except TemplateSyntaxError as error:
            raise ConfigError(f"template is not valid Jinja: line {error.lineno}: {error.message}") from None

        def render(row: Row) -> Row:
            try:
                text = render_within_limits(lambda: template.render({"element": row, **row}), row)
            except TemplateLimitError:
                raise
            except UndefinedError as error:
                raise RowError(f"the template asks for what is not there: {error}; {_columns(row)}") from None
            except Exception as error:  # a template may raise anything on data it was not written for
                raise RowError(f"the template cannot render this row: {error}") from None
            return {**row, self.dataset_text_field: text + eos}

        return row_step(render)


@dataclass(frozen=True, kw_only=True)
class ApplyCustomDataFormattingTemplate(Handler):
    """Puts columns into a text by `{{column}}`. Names may hold letters, digits, spaces, `_`, `-` and `.`."""

    dataset_text_field: str = option(help="Column the text is written to.")
    template: str = option(help="The text, with `{{column}}` where a column's value goes.")
    add_eos_token: bool = option(True, help="End the text with the eos token.")

    def reads(self) -> tuple[str, ...]:
        """The columns that the template names."""
        return tuple(dict.fromkeys(name.strip() for name in _PLACEHOLDER.findall(self.template)))

    def writes(self) -> tuple[str, ...]:
        """The text column."""
        return (self.dataset_text_field,)

    def bind(self, tools: Tools) -> Step:
        """Substitute in each row."""
        eos = tools.eos_token if self.add_eos_token else ""

        def substitute(row: Row) -> Row:
            text = _PLACEHOLDER.sub(lambda match: _value_text(row, match[1].strip()), self.template)
            return {**row, self.dataset_text_field: text + eos}

        return row_step(substitute)


@dataclass(frozen=True, kw_only=True)
class AddTokenizerEosToken(Handler):
    """Appends the eos token to a text column."""

    dataset_text_field: str = option(help="Column whose text gets the eos token.")
    only_if_missing: bool = option(False, help="Leave a text alone that ends with it already.")

    def reads(self) -> tuple[str, ...]:
        """The text column."""
        return (self.dataset_text_field,)

    def writes(self) -> tuple[str, ...]:
        """The text column."""
        return (self.dataset_text_field,)

    def bind(self, tools: Tools) -> Step:
        """Append to each row."""
        eos = tools.eos_token

        def append(row: Row) -> Row:
            text = text_in(row, self.dataset_text_field)
            closed = self.only_if_missing and text.rstrip().endswith(eos)
            return {**row, self.dataset_text_field: text if closed else text + eos}

        return row_step(append)


def _value_text(row: Row, column: str) -> str:
    if column not in row:
        raise RowError(missing_column_message(column, row))
    value: Any = row[column]
    if value is None:
        raise RowError(f"column {column!r} is null where text should be")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _columns(row: Row) -> str:
    return f"columns here: {', '.join(row) or 'none'}"
