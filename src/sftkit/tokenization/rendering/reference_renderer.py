"""The interface of renderers, and the reference: `apply_chat_template` of transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from sftkit.core.error_text import first_line
from sftkit.core.row_log import RowError, require_valid_text
from sftkit.errors import TokenizerError
from sftkit.sandbox.chat_templates import apply_chat_template, today
from sftkit.sandbox.render_limits import TemplateLimitError, render_within_limits
from sftkit.sandbox.template_check import check_template_operations
from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.templates.template_marks import MarkedTemplate, index_function_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WHOLE_ROW = "sftkit_row"
_PLACEHOLDER: list[Message] = [{"role": "user", "content": ""}]


class Renderer(Protocol):
    """An engine that renders conversations. All engines give the same text."""

    @property
    def name(self) -> str:
        """The name of the engine in manifests."""

    def source(self, *, with_tools: bool) -> str:
        """Return the template in use.

        Args:
            with_tools: for a conversation with tools; some tokenizers have another template for these.

        Raises:
            TokenizerError: there is no template.
        """

    def render(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> str:
        """Render a conversation.

        Args:
            conversation: its messages, tools, documents and variables.
            template: a template to use instead of the one in use.
            add_generation_prompt: end the text with the start of an assistant turn.

        Raises:
            RowError: the template cannot render this conversation.
        """

    def render_marked(
        self, conversation: Conversation, marked: MarkedTemplate, *, add_generation_prompt: bool = False
    ) -> str:
        """Render a conversation with a marked template; the text contains its marks.

        Raises:
            RowError: as `render`.
        """


class ReferenceRenderer:
    """Renders through transformers, with Jinja2: sandboxed, with the filters and globals of transformers."""

    name = "jinja2"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template_date: str | None = None) -> None:
        """Prepare for the chat templates of a tokenizer, which are given a date (YYYY-MM-DD; None for today)."""
        self._tokenizer = tokenizer
        self.template_date = template_date or today()

    def source(self, *, with_tools: bool) -> str:
        """Return the template in use; raises `TokenizerError` if there is none."""
        try:
            return self._tokenizer.get_chat_template(None, tools=[{}] if with_tools else None)
        except ValueError:
            raise TokenizerError(
                f"tokenizer {self._tokenizer.name_or_path!r} has no chat template; set dataprocessor.chat_template"
            ) from None

    def check(self) -> None:
        """Raise `TokenizerError` if there is no template, or it is not valid Jinja."""
        template = self.source(with_tools=False)
        with suppress(RowError):  # a valid template may refuse these messages
            self.render(Conversation(_PLACEHOLDER), template=template)

    def render(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> str:
        """Render a conversation.

        Args:
            conversation: its messages, tools, documents and variables.
            template: a template to use instead of the one in use.
            add_generation_prompt: end the text with the start of an assistant turn.

        Raises:
            RowError: the template cannot render this conversation.
            TokenizerError: the template is not valid Jinja, or needs too much time or memory (`TemplateLimitError`).
        """
        import jinja2

        messages: Any = conversation.messages
        values: dict[str, Any] = {}
        if isinstance(messages, Mapping):
            # apply_chat_template takes lists only, so the row is passed as another variable.
            template = template or self.source(with_tools=conversation.tools is not None)
            template = f"{{% set messages = {_WHOLE_ROW} %}}\n{template}"
            messages, values = _PLACEHOLDER, {_WHOLE_ROW: conversation.messages}

        def rendered() -> str:
            return apply_chat_template(
                self._tokenizer,
                list(messages),
                self.template_date,
                tools=conversation.tools,
                documents=conversation.documents,
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                **{**conversation.variables, **values},
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
        except Exception as error:  # a template may raise anything for unexpected data
            raise RowError(f"the chat template cannot render this row: {first_line(error)}") from None
        return require_valid_text(text)

    def render_marked(
        self, conversation: Conversation, marked: MarkedTemplate, *, add_generation_prompt: bool = False
    ) -> str:
        """Render a conversation with a marked template; raises as `render`."""
        prelude = index_function_source(conversation.column) if marked.calls_index_function else ""
        return self.render(conversation, template=prelude + marked.source, add_generation_prompt=add_generation_prompt)

    def normalize(self, conversation: Conversation) -> tuple[Conversation, int]:
        """Return a conversation as templates get it from transformers, and its length as JSON text in characters.

        transformers removes keys with null, unifies the names of reasoning fields and converts values to JSON types.

        Raises:
            RowError: transformers refuses the conversation.
        """
        text = self.render(conversation, template="{{ [messages, tools, documents] | tojson }}")
        messages, tools, documents = json.loads(text)
        return Conversation(messages, tools, documents, conversation.variables), len(text)
