"""In which form a chat template takes the content of a message: as text, as a list of parts, or either.

Templates written for text show a list as Python prints it, or fail; templates written for parts show nothing of a text.
Which is which is found out by rendering both (as vLLM's `--chat-template-content-format auto` finds it in the source).
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
    """Gives each template the contents in the form it takes, where a row has them in the other one.

    Lists of text parts become one text, the parts joined as they are; a text becomes one part. Lists with other parts
    (images, reasoning) are left to the template.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._takes: dict[str, tuple[bool, bool]] = {}

    def adapt(self, conversation: Conversation) -> Conversation:
        """The conversation as the template takes it; the same object where nothing is to be done.

        Raises:
            TokenizerError: the template is not valid.
        """
        if isinstance(conversation.messages, Mapping):
            return conversation  # a template that takes a whole row was written for that row
        messages = conversation.messages
        source = self._renderer.source(with_tools=conversation.tools is not None)
        takes_text, takes_parts = self._form_of(source, conversation)
        if takes_text == takes_parts:
            return conversation
        other, adapt = (list, _as_text) if takes_text else (str, _as_parts)
        if other not in [type(message.get("content")) for message in messages]:
            return conversation
        return conversation.with_message_list([adapt(message) for message in messages])

    def _form_of(self, source: str, conversation: Conversation) -> tuple[bool, bool]:
        if source not in self._takes:
            self._takes[source] = (
                self._shows(source, PROBE_CONTENT, conversation),
                self._shows(source, [{"type": _TEXT, _TEXT: PROBE_CONTENT}], conversation),
            )
        return self._takes[source]

    def _shows(self, source: str, content: Any, like: Conversation) -> bool:
        """Whether the template writes the text of a content, and not the list around it."""
        probe = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
        for turns in (probe, probe[:1]):
            try:
                text = self._renderer.render(Conversation(turns, None, None, like.variables), template=source)
            except RowError:
                continue
            return PROBE_CONTENT in text and f"'{PROBE_CONTENT}'" not in text and f'"{PROBE_CONTENT}"' not in text
        return False


def _as_text(message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts = [_text_of(part) for part in content]
    return message if None in texts else {**message, "content": "".join(text for text in texts if text is not None)}


def _as_parts(message: Message) -> Message:
    content = message.get("content")
    return {**message, "content": [{"type": _TEXT, _TEXT: content}]} if isinstance(content, str) else message


def _text_of(part: Any) -> str | None:
    """The text of a part, None for a part that is not text."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", _TEXT) == _TEXT and isinstance(part.get(_TEXT), str):
        return str(part[_TEXT])
    return None
