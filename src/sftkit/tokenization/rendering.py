"""Conversations -> text, exactly as `tokenizer.apply_chat_template` renders them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sftkit.errors import TokenizerError
from sftkit.rows import RowError, checked_text
from sftkit.tokenization.template_marks import INDEX_MACRO, MarkedTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]

_WHOLE_ROW = "sftkit_row"
_STAND_IN: list[Message] = [{"role": "user", "content": ""}]


@dataclass(frozen=True)
class Conversation:
    """What a chat template is given: messages (or a whole row, for templates that take one), tools and documents."""

    messages: Sequence[Message] | Mapping[str, Any]
    tools: list[Any] | None = None
    documents: list[Any] | None = None


class Renderer(Protocol):
    """An engine that renders conversations. Whichever it is, the text is the same."""

    @property
    def name(self) -> str:
        """What the manifest calls it."""

    def source(self, *, with_tools: bool) -> str:
        """The template in force; `TokenizerError` when there is none."""

    def render(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> str:
        """The text of a conversation; `RowError` when it cannot be rendered."""

    def render_marked(self, conversation: Conversation, marked: MarkedTemplate) -> str:
        """The text of a conversation with the marks of a marked template in it."""


class ReferenceRenderer:
    """Renders with Jinja2 as transformers sets it up: sandboxed, with its filters and globals."""

    name = "jinja2"

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def source(self, *, with_tools: bool) -> str:
        """The template in force; tokenizers may have another one for conversations with tools.

        Raises:
            TokenizerError: there is none.
        """
        try:
            return self._tokenizer.get_chat_template(None, tools=[{}] if with_tools else None)
        except ValueError:
            raise TokenizerError(
                f"tokenizer {self._tokenizer.name_or_path!r} has no chat template; give `dataprocessor.chat_template`"
            ) from None

    def check(self) -> None:
        """Raise `TokenizerError` when there is no template, or one that is not valid Jinja."""
        template = self.source(with_tools=False)
        with suppress(RowError):  # that it cannot render these messages says nothing against it
            self.render(Conversation(_STAND_IN), template=template)

    def render(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> str:
        """The text of a conversation.

        Args:
            conversation: its messages, tools and documents.
            template: another template than the one in force.
            add_generation_prompt: end with what opens an assistant turn.

        Raises:
            RowError: the template cannot render this conversation.
            TokenizerError: the template is not valid Jinja.
        """
        import jinja2

        messages: Any = conversation.messages
        values: dict[str, Any] = {}
        if isinstance(messages, Mapping):
            # apply_chat_template takes lists only; a template that wants the whole row gets it under another name.
            template = template or self.source(with_tools=conversation.tools is not None)
            template = f"{{% set messages = {_WHOLE_ROW} %}}\n{template}"
            messages, values = _STAND_IN, {_WHOLE_ROW: conversation.messages}
        try:
            rendered = self._tokenizer.apply_chat_template(
                list(messages),
                tools=conversation.tools,
                documents=conversation.documents,
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **values,
            )
        except jinja2.TemplateSyntaxError as error:
            raise TokenizerError(
                f"the chat template is not valid Jinja: line {error.lineno}: {error.message}"
            ) from None
        except Exception as error:  # a template may raise anything on data it was not written for
            raise RowError(f"the chat template cannot render this row: {_reason(error)}") from None
        return checked_text(str(rendered))

    def render_marked(self, conversation: Conversation, marked: MarkedTemplate) -> str:
        """The text of a conversation with marks in it.

        Raises:
            RowError, TokenizerError: as `render`.
        """
        prelude = INDEX_MACRO if marked.calls_index else ""
        return self.render(conversation, template=prelude + marked.source)

    def seen(self, conversation: Conversation) -> Conversation:
        """A conversation as templates see it: what transformers makes of it before it renders (null keys left out,
        names of the reasoning unified, JSON types only).

        Raises:
            RowError: transformers refuses it.
        """
        shown = "{{ [messages, tools, documents] | tojson }}"
        return Conversation(*json.loads(self.render(conversation, template=shown)))


def conversation_of(row: Mapping[str, Any], column: str | None) -> Conversation:
    """The conversation of a row: one column, or the whole row when `column` is None.

    Raises:
        RowError: the column is missing or is no list of messages; `tools` or `documents` are not lists.
    """
    tools, documents = _listed(row, "tools"), _listed(row, "documents")
    if column is None:
        return Conversation(row, tools, documents)
    if column not in row:
        raise RowError(f"column {column!r} not found; columns here: {', '.join(row)}")
    messages = row[column]
    if not isinstance(messages, list) or not messages:
        raise RowError(f"column {column!r} must hold a list of messages, not {_kind(messages)}")
    if set(map(type, messages)) != {dict}:  # no loop in Python where all is well
        for index, message in enumerate(messages):
            if not isinstance(message, dict):
                raise RowError(f"message {index} of column {column!r} must be an object, not {_kind(message)}")
    return Conversation(messages, tools, documents)


def _listed(row: Mapping[str, Any], column: str) -> list[Any] | None:
    """A column that holds a list, also as JSON text; None and "" mean that there is none."""
    value = row.get(column)
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise RowError(f"column {column!r} holds text that is not JSON: {error.msg}") from None
    if not value:
        return None
    if not isinstance(value, list):
        raise RowError(f"column {column!r} must hold a list, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return "an empty list" if value == [] else type(value).__name__


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
