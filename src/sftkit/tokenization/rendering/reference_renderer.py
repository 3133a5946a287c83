"""Conversations -> text, exactly as `tokenizer.apply_chat_template` renders them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from sftkit.core.error_text import first_line
from sftkit.core.row_log import RowError, require_valid_text
from sftkit.errors import TokenizerError
from sftkit.sandbox.render_limits import TemplateLimitError, render_within_limits
from sftkit.sandbox.template_check import check_template_operations
from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.templates.template_marks import MarkedTemplate, index_function_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WHOLE_ROW = "sftkit_row"
_STAND_IN: list[Message] = [{"role": "user", "content": ""}]


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

    def render_marked(
        self, conversation: Conversation, marked: MarkedTemplate, *, add_generation_prompt: bool = False
    ) -> str:
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
            TokenizerError: the template is not valid Jinja, or takes too much (`TemplateLimitError`).
        """
        import jinja2

        messages: Any = conversation.messages
        values: dict[str, Any] = {}
        if isinstance(messages, Mapping):
            # apply_chat_template takes lists only; a template that wants the whole row gets it under another name.
            template = template or self.source(with_tools=conversation.tools is not None)
            template = f"{{% set messages = {_WHOLE_ROW} %}}\n{template}"
            messages, values = _STAND_IN, {_WHOLE_ROW: conversation.messages}

        def rendered() -> str:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=conversation.tools,
                    documents=conversation.documents,
                    chat_template=template,
                    add_generation_prompt=add_generation_prompt,
                    tokenize=False,
                    **{**conversation.variables, **values},
                )
            )

        check_template_operations(template or self.source(with_tools=conversation.tools is not None))
        try:
            text = render_within_limits(rendered, [conversation.messages, conversation.tools, conversation.documents])
        except TemplateLimitError:
            raise
        except jinja2.TemplateSyntaxError as error:
            raise TokenizerError(
                f"the chat template is not valid Jinja: line {error.lineno}: {error.message}"
            ) from None
        except Exception as error:  # a template may raise anything on data it was not written for
            raise RowError(f"the chat template cannot render this row: {first_line(error)}") from None
        return require_valid_text(text)

    def render_marked(
        self, conversation: Conversation, marked: MarkedTemplate, *, add_generation_prompt: bool = False
    ) -> str:
        """The text of a conversation with marks in it.

        Raises:
            RowError, TokenizerError: as `render`.
        """
        prelude = index_function_source(conversation.column) if marked.calls_index_function else ""
        return self.render(conversation, template=prelude + marked.source, add_generation_prompt=add_generation_prompt)

    def normalize(self, conversation: Conversation) -> tuple[Conversation, int]:
        """A conversation as templates see it: what transformers makes of it before it renders (null keys left out,
        names of the reasoning unified, JSON types only). And its length as JSON, in characters.

        Raises:
            RowError: transformers refuses it.
        """
        text = self.render(conversation, template="{{ [messages, tools, documents] | tojson }}")
        messages, tools, documents = json.loads(text)
        return Conversation(messages, tools, documents, conversation.variables), len(text)
