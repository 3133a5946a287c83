"""The interface of renderers, and the reference: `apply_chat_template` of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from sftkit.core.error_text import first_line
from sftkit.core.row_log import RowError, require_valid_text
from sftkit.errors import TokenizerError
from sftkit.sandbox.chat_templates import (
    CompiledByTransformers,
    apply_compiled_template,
    compiled_by_transformers,
    today,
)
from sftkit.sandbox.render_limits import TemplateLimitError, render_within_limits
from sftkit.sandbox.template_check import check_template_operations
from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.templates.recording import Recording

if TYPE_CHECKING:
    import jinja2
    from transformers import PreTrainedTokenizerBase

_WHOLE_ROW = "sftkit_row"
_ROW_AS_MESSAGES = f"{{% set messages = {_WHOLE_ROW} %}}\n"
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

    def can_record(self, source: str) -> bool:
        """Return whether `record` is possible with a template."""

    def record(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> Recording:
        """Render a conversation, and record which message is written where.

        Raises:
            RowError: as `render`.
        """


def record_if_possible(renderer: Renderer, conversation: Conversation) -> Recording:
    """Return a recording; only of the text if the template, or a row as `messages`, cannot be recorded.

    Raises:
        RowError: as `Renderer.render`.
    """
    if renderer.can_record(renderer.source(with_tools=conversation.tools is not None)) and conversation.has_messages:
        return renderer.record(conversation)
    return Recording.of_text(renderer.render(conversation))


class ReferenceRenderer:
    """Renders through transformers, with Jinja2: sandboxed, with the filters and globals of transformers."""

    name = "jinja2"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template_date: str | None = None) -> None:
        """Prepare for the chat templates of a tokenizer, which are given a date (YYYY-MM-DD; None for today)."""
        self._tokenizer = tokenizer
        self.template_date = template_date or today()
        self._sources: dict[bool, str] = {}

    def source(self, *, with_tools: bool) -> str:
        """Return the template in use; raises `TokenizerError` if there is none."""
        if with_tools in self._sources:
            return self._sources[with_tools]
        try:
            source: str = self._tokenizer.get_chat_template(None, tools=[{}] if with_tools else None)
            return self._sources.setdefault(with_tools, source)
        except ValueError:
            raise TokenizerError(
                f"tokenizer {self._tokenizer.name_or_path!r} has no chat template; set dataprocessor.chat_template, "
                "for example to chatml"
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
        source = self.source(with_tools=conversation.tools is not None) if template is None else template
        if isinstance(conversation.messages, Mapping):
            source = _ROW_AS_MESSAGES + source
        return self._apply(
            conversation,
            source,
            lambda: compiled_by_transformers(source, self.template_date),
            add_generation_prompt=add_generation_prompt,
        )

    def can_record(self, source: str) -> bool:
        """Return whether `record` is possible with a template; raises `TokenizerError` if it is not valid Jinja."""
        import jinja2

        from sftkit.tokenization.templates.compiled_template import compiled_template

        try:
            compiled_template(source, self.template_date, direct=False)
        except (ValueError, SyntaxError, RecursionError):  # the last two where Python cannot compile Jinja's code
            return False
        except jinja2.TemplateSyntaxError as error:
            raise _not_valid(error) from None
        return True

    def record(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> Recording:
        """Render a conversation with the code that `render` uses, and record which message is written where.

        Raises:
            RowError, TokenizerError: as `render`.
        """
        source = self.source(with_tools=conversation.tools is not None) if template is None else template
        column = conversation.column
        if column is not None:
            source = _ROW_AS_MESSAGES + source
        recorded = _RecordedTemplate(source, self.template_date, column)
        self._apply(conversation, source, lambda: recorded, add_generation_prompt=add_generation_prompt)
        assert recorded.recording is not None
        return recorded.recording

    def _apply(
        self,
        conversation: Conversation,
        source: str,
        compile_template: Callable[[], CompiledByTransformers],
        *,
        add_generation_prompt: bool,
    ) -> str:
        """Render a conversation as transformers does, with a template that `compile_template` gives."""
        import jinja2

        messages: Any = conversation.messages
        values: dict[str, Any] = {}
        if isinstance(messages, Mapping):
            # apply_chat_template takes lists only, so the row is passed as another variable.
            messages, values = _PLACEHOLDER, {_WHOLE_ROW: conversation.messages}

        def rendered() -> str:
            return apply_compiled_template(
                self._tokenizer,
                list(messages),
                compile_template(),
                tools=conversation.tools,
                documents=conversation.documents,
                chat_template=source,
                add_generation_prompt=add_generation_prompt,
                **{**conversation.variables, **values},
            )

        check_template_operations(source)
        try:
            text = render_within_limits(rendered, [conversation.messages, conversation.tools, conversation.documents])
        except TemplateLimitError:
            raise
        except jinja2.TemplateSyntaxError as error:
            raise _not_valid(error) from None
        except Exception as error:  # a template may raise anything for unexpected data
            raise RowError(f"the chat template cannot render this row: {first_line(error)}") from None
        return require_valid_text(text)


class _RecordedTemplate:
    """Stands for a compiled template while transformers renders with it, and keeps what it wrote."""

    def __init__(self, source: str, day: str, column: str | None) -> None:
        self._source, self._day, self._column = source, day, column
        self.recording: Recording | None = None

    def render(self, **values: Any) -> str:
        from sftkit.tokenization.templates.compiled_template import compiled_template

        messages = values["messages"] if self._column is None else values[_WHOLE_ROW][self._column]
        self.recording = compiled_template(self._source, self._day, direct=False).record(values, messages)
        return self.recording.text


def _not_valid(error: jinja2.TemplateSyntaxError) -> TokenizerError:
    return TokenizerError(f"the chat template is not valid Jinja: line {error.lineno}: {error.message}")
