"""The fast engine for rendering: chat templates compiled to Python code that reads values directly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

from sftkit.core.error_text import first_line
from sftkit.core.message_fields import TRANSFORMERS_REASONING_FIELDS
from sftkit.core.row_log import RowError, require_valid_text
from sftkit.sandbox.render_limits import TemplateLimitError, render_within_limits
from sftkit.sandbox.template_check import check_template_operations
from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.rendering.program_renderer import ProgramRenderer
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from sftkit.tokenization.templates.recording import Recording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftkit.tokenization.templates.compiled_template import CompiledTemplate

_SCALARS = frozenset({str, int, float, bool, type(None)})
_TEXT = frozenset({str})
_REASONING = frozenset(TRANSFORMERS_REASONING_FIELDS)


class CompiledRenderer:
    """Renders with the code that Jinja2 compiles a template to, rewritten to read values directly, or with programs.

    A conversation is prepared as `apply_chat_template` of transformers prepares it. One that has values of other types
    than those of JSON is refused with a `RowError`; the caller must use the reference for it.
    """

    name = "compiled"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reference: ReferenceRenderer) -> None:
        """Prepare for the chat template of a tokenizer.

        Raises:
            UnsupportedByEngineError: its output cannot be recorded.
        """
        self._reference = reference
        self._last: tuple[Conversation, Conversation] | None = None
        self._special_tokens: Mapping[str, Any] = dict(tokenizer.special_tokens_map)
        source = reference.source(with_tools=False)
        if not _is_plain(self._special_tokens) or not reference.can_record(source):
            raise UnsupportedByEngineError("the output of the template cannot be recorded")
        try:
            self._compiled(source)
        except RecursionError:
            raise UnsupportedByEngineError("the template is nested too deeply to be rewritten") from None
        self.programs = ProgramRenderer(reference, self._special_tokens)

    def source(self, *, with_tools: bool) -> str:
        """Return the template in use; raises `TokenizerError` if there is none."""
        return self._reference.source(with_tools=with_tools)

    def can_record(self, source: str) -> bool:
        """Return whether `record` is possible with a template."""
        return self._reference.can_record(source)

    def render(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> str:
        """Render a conversation; raises `RowError` if this engine cannot."""
        return self.record(conversation, template=template, add_generation_prompt=add_generation_prompt).text

    def record(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> Recording:
        """Render a conversation and record which message is written where; raises as `render`."""
        if template is None and not add_generation_prompt:
            recording = self.programs.record(conversation)
            if recording is not None:
                return recording
        source = self.source(with_tools=conversation.tools is not None) if template is None else template
        prepared = self._prepare(conversation)
        values = {
            **self._special_tokens,
            **prepared.variables,
            "messages": prepared.messages,
            "tools": prepared.tools,
            "documents": prepared.documents,
            "add_generation_prompt": add_generation_prompt,
        }
        recordings: list[Recording] = []

        def rendered() -> str:
            recordings.append(self._compiled(source).record(values, _messages_of(prepared)))
            return recordings[-1].text

        check_template_operations(source)
        try:
            text = render_within_limits(rendered, [conversation.messages, conversation.tools, conversation.documents])
        except TemplateLimitError:
            raise
        except Exception as error:  # a template may raise anything for unexpected data
            raise RowError(f"the chat template cannot render this row: {first_line(error)}") from None
        require_valid_text(text)
        return recordings[-1]

    def _prepare(self, conversation: Conversation) -> Conversation:
        """Return a conversation as templates get it; raises as `_prepared`.

        What was prepared last is kept: beginnings of a conversation are often rendered after it.
        """
        given, prepared = self._last or (None, None)
        if given is None or prepared is None or not _begins_with(given, conversation):
            try:
                prepared = _with_distinct_messages(_prepared(conversation))
            except RecursionError:
                raise RowError("it has values that are nested too deeply") from None
            self._last = conversation, prepared
        count = len(conversation.messages)
        return prepared if count == len(prepared.messages) else prepared.first_messages(count)

    def _compiled(self, source: str) -> CompiledTemplate:
        from sftkit.tokenization.templates.compiled_template import compiled_template

        return compiled_template(source, self._reference.template_date, direct=True)


def _begins_with(whole: Conversation, beginning: Conversation) -> bool:
    """Return whether a conversation consists of the first messages of another: the same objects, at least one."""
    messages, some = whole.messages, beginning.messages
    return (
        type(messages) is type(some) is list
        and 0 < len(some) <= len(messages)
        and all(map(is_, some, messages))
        and beginning.tools is whole.tools
        and beginning.documents is whole.documents
        and beginning.variables is whole.variables
    )


def _messages_of(conversation: Conversation) -> Sequence[Message]:
    """Return the messages of a conversation; none if it is a row in which no column is known to hold them."""
    try:
        return conversation.message_list
    except RowError:
        return ()


def _with_distinct_messages(conversation: Conversation) -> Conversation:
    """Return a conversation in which no message object stands twice, since messages are recognized by identity."""
    messages = _messages_of(conversation)
    if len(set(map(id, messages))) == len(messages):
        return conversation
    return conversation.with_message_list([dict(message) for message in messages])


def _prepared(conversation: Conversation) -> Conversation:
    """Return a conversation as templates get it from transformers.

    transformers drops keys whose value is null, and copies reasoning to all of the names that templates read.

    Raises:
        RowError: transformers would change or refuse it in another way.
    """
    messages = conversation.messages
    others = [value for value in (conversation.tools, conversation.documents) if value is not None]
    if not all(map(_is_plain, [*others, dict(conversation.variables)] if conversation.variables else others)) or any(
        type(item) is not dict for value in others for item in value
    ):
        raise RowError("it has values that are not JSON")
    if isinstance(messages, Mapping):
        if not _is_plain(messages):
            raise RowError("it has values that are not JSON")
        return conversation
    if not messages or set(map(type, messages)) != {dict}:
        raise RowError("it is not a list of objects")
    _, keys, types = conversation.shape
    if set(map(type, keys)) - _TEXT:
        raise RowError("it has keys that are not text")
    has_reasoning = not _REASONING.isdisjoint(keys)
    if types == _TEXT and not has_reasoning:
        return conversation
    if type(None) in types:
        messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    if not types <= _SCALARS and not all(map(_is_plain, messages)):
        raise RowError("it has values that are not JSON")
    if has_reasoning:
        messages = list(map(_with_reasoning, messages))
    return Conversation(messages, conversation.tools, conversation.documents, conversation.variables)


def _with_reasoning(message: Message) -> Message:
    reasoning = next((message[key] for key in TRANSFORMERS_REASONING_FIELDS if message.get(key) is not None), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _is_plain(value: Any) -> bool:
    """Return whether a value consists of the exact types of JSON, so that transformers does not convert it."""
    items: Iterable[Any]
    if type(value) is dict:
        items = value.values()
        if set(map(type, value)) - {str}:
            return False
    elif type(value) is list:
        items = value
    else:
        return type(value) in _SCALARS
    kinds = set(map(type, items)) - _SCALARS
    return not kinds or (kinds <= {dict, list} and all(map(_is_plain, items)))
