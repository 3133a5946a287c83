"""Turns into which a template renders the messages after them, such as tool results."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message, content_of, is_assistant
from sftkit.tokenization.masking.turns.turn_start import TAGS, start_up_to_tag
from sftkit.tokenization.probing.message_spans import MessageSpans, find_message_spans
from sftkit.tokenization.rendering.reference_renderer import Renderer


def length_without_later_messages(renderer: Renderer, conversation: Conversation, index: int, written: str) -> int:
    """Return how many characters of what was written for a turn belong to the turn itself.

    A template may render tool results into the turn that called the tools. The turn's own text is what the template
    writes for it when no message follows.

    Raises:
        RowError: what was written does not start with that text.
    """
    shortened = conversation.first_messages(index + 1)
    recording = renderer.record(shortened)
    spans = find_message_spans(recording, index + 1, [index])
    start, end = spans.get(index, (0, 0)) if spans is not None else (0, 0)
    own = recording.text[start:end]
    if own and written.startswith(own):
        return len(own)
    shared = start_up_to_tag(own, written)  # a turn may end with another tag when messages follow
    if shared and TAGS.fullmatch(own, len(shared)) and TAGS.fullmatch(written, len(shared)):
        return len(written)
    raise RowError(f"message {index} is rendered together with the messages after it; cannot verify its mask")


def may_contain_later_messages(messages: Sequence[Message], spans: MessageSpans, index: int) -> bool:
    """Return whether a message between a turn and the next turn has content but no span of its own."""
    for following in range(index + 1, len(messages)):
        if is_assistant(messages[following]):
            return False
        if following not in spans and content_of(messages[following]):
            return True
    return False
