"""Find out whether a chat template accepts message content as text, as a list of parts, or both.

Templates written for text fail on a list or print its Python representation; templates written for parts print nothing
if the content is a string. Rendering both forms shows which ones a template takes (vLLM's
`--chat-template-content-format auto` decides this by the source of the template).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.probing.turn_format import PROBE_CONTENT
from sftkit.tokenization.rendering.reference_renderer import Renderer

_TEXT = "text"


class ContentFormatAdapter:
    """Converts contents to the form that the template takes, if a row has them in the other form.

    A list of text parts becomes the concatenated text; a text becomes one part. Lists with other parts, such as images
    or reasoning, are not changed.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._formats: dict[str, tuple[bool, bool]] = {}

    def adapt(self, conversation: Conversation) -> Conversation:
        """Return the conversation in the form that the template takes; the same object if nothing changes.

        Raises:
            TokenizerError: the template is not valid.
        """
        if type(conversation.messages) is not list:
            return conversation  # a template that takes a whole row was written for this form of row
        source = self._renderer.source(with_tools=conversation.tools is not None)
        takes_text, takes_parts = self._formats_of(source, conversation)
        if takes_text == takes_parts:
            return conversation
        other_type, convert = (list, _to_text) if takes_text else (str, _to_parts)
        if other_type not in conversation.shape.types:
            return conversation
        messages = conversation.messages
        if other_type not in [type(message.get("content")) for message in messages]:
            return conversation
        return conversation.with_message_list([convert(message) for message in messages])

    def _formats_of(self, source: str, conversation: Conversation) -> tuple[bool, bool]:
        """Return whether a template takes text, and whether it takes parts."""
        if source not in self._formats:
            self._formats[source] = (
                self._renders(source, PROBE_CONTENT, conversation),
                self._renders(source, [{"type": _TEXT, _TEXT: PROBE_CONTENT}], conversation),
            )
        return self._formats[source]

    def _renders(self, source: str, content: Any, like: Conversation) -> bool:
        """Return whether the template writes the text of a content, and not the list around it."""
        probe = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
        for messages in (probe, probe[:1]):
            try:
                text = self._renderer.render(Conversation(messages, None, None, like.variables), template=source)
            except RowError:
                continue
            return PROBE_CONTENT in text and f"'{PROBE_CONTENT}'" not in text and f'"{PROBE_CONTENT}"' not in text
        return False


def _to_text(message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts = [_text_of_part(part) for part in content]
    return message if None in texts else {**message, "content": "".join(text for text in texts if text is not None)}


def _to_parts(message: Message) -> Message:
    content = message.get("content")
    return {**message, "content": [{"type": _TEXT, _TEXT: content}]} if isinstance(content, str) else message


def _text_of_part(part: Any) -> str | None:
    """Return the text of a part; None if it is not a text part."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", _TEXT) == _TEXT and isinstance(part.get(_TEXT), str):
        return str(part[_TEXT])
    return None
