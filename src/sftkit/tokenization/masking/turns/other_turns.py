"""Finds what of messages of other roles than the assistant's carries a loss (`roles_to_train`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message, content_of
from sftkit.tokenization.encoding.spans import Span, outside
from sftkit.tokenization.masking.ranges.untrained_content import naming_message, untrained_content
from sftkit.tokenization.masking.supervision import AssistantTurn
from sftkit.tokenization.masking.turns.turn_end import TurnEnd
from sftkit.tokenization.probing.message_spans import find_message_spans, known_message_spans
from sftkit.tokenization.rendering.reference_renderer import Renderer
from sftkit.tokenization.templates.recording import Recording

_SPACE = "\t\t"
"""White space around made-up contents; whether a template strips it shows what it does to others."""
_WHOLE = -1
"""Stands for the part of a content that is one text."""


class WrittenContent(NamedTuple):
    """Characters [start, end) of a text that are those of a content from its character `first` on."""

    start: int
    end: int
    first: int


class OtherTurn(NamedTuple):
    """What of a message that is not the assistant's may carry a loss: its content, and the stop token after it."""

    message: int
    """Index of the message."""
    contents: list[WrittenContent]
    """The text of the content, or of each of its parts; ordered."""
    stop: Span | None
    """The stop token; None if the template writes none for this message."""

    def as_turn(self) -> AssistantTurn:
        """Return all of it that may carry a loss, as one span."""
        end = self.contents[-1].end if self.stop is None else self.stop[1]
        return AssistantTurn(self.message, self.contents[0].start, end)

    def hidden(self, message: Message) -> list[Span]:
        """Return the characters of the text that carry no loss by the ranges of the message; raises as `train_ranges`.

        Example:
            >>> ranges = [{"begin": 1, "end": 2, "train": False}]
            >>> OtherTurn(0, [WrittenContent(10, 13, 0)], None).hidden({"content": "abc", "train_ranges": ranges})
            [(11, 12)]
        """
        return [
            (max(begin - first + start, start), min(after - first + start, end))
            for begin, after in untrained_content(message, self.message)
            for start, end, first in self.contents
            if begin < first + end - start and first < after
        ]

    def trained(self, message: Message, *, trains_stop: bool) -> list[Span]:
        """Return the characters of the text that carry a loss, ordered; raises as `hidden`."""
        hidden = self.hidden(message)
        spans = [span for start, end, _ in self.contents for span in outside(hidden, start, end)]
        return [*spans, self.stop] if self.stop is not None and trains_stop else spans


def find_other_turns(
    renderer: Renderer, conversation: Conversation, recording: Recording, indices: Sequence[int], turn_end: TurnEnd
) -> list[OtherTurn]:
    """Find the contents of messages in the text of a conversation, and the stop tokens after them.

    The conversation is rendered once more, with made-up contents. They show what the template writes around each
    content, and whether it strips white space; the text must consist of just that and the contents. The stop token of a
    message is the first one after the content in what the template wrote for the message.

    Args:
        renderer: renders the made-up contents.
        conversation: the conversation.
        recording: its text.
        indices: the messages, ascending.
        turn_end: knows the stop tokens.

    Returns:
        The turns of the messages that have text and are written, in their order.

    Raises:
        RowError: a content is not text, is written several times or changed, or other text depends on it; or it is
            unknown which text was written for a message.
    """
    contents = {(index, part): (text, first) for index in indices for part, text, first in _texts(conversation, index)}
    if not contents:
        return []
    places = _places(renderer, conversation, recording.text, contents)
    count = len(conversation.message_list)
    spans = find_message_spans(recording, count, indices) or known_message_spans(recording, count, ())
    turns: list[OtherTurn] = []
    for index in dict.fromkeys(index for index, _ in places):
        written = [place for (owner, _), place in places.items() if owner == index]
        end = written[-1].end
        starts = (start for start, _ in spans.values() if start >= end)
        edge = spans[index][1] if index in spans else min(starts, default=len(recording.text))
        turns.append(OtherTurn(index, written, turn_end.first_stop(recording.text, end, edge)))
    return turns


def _texts(conversation: Conversation, index: int) -> Iterator[tuple[int, str, int]]:
    """Yield the texts of a content that are not empty: the part (or `_WHOLE`), its text, and the characters before."""
    content = content_of(conversation.message_list[index])
    if not isinstance(content, str | list | None):
        raise RowError(f"message {index} has a content that is not text; cannot verify its mask")
    parts = enumerate(content) if isinstance(content, list) else [(_WHOLE, content)]
    before = 0
    for number, part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        if isinstance(text, str):
            if text.strip():
                yield number, text, before
            before += len(text)


def _places(
    renderer: Renderer, conversation: Conversation, text: str, contents: Mapping[tuple[int, int], tuple[str, int]]
) -> dict[tuple[int, int], WrittenContent]:
    """Return where the contents are in a text, by message and part; those that are not written are left out."""
    names = {key: f"sftkit{number}probe" for number, key in enumerate(contents)}
    messages = list(conversation.message_list)
    for (index, part), name in names.items():
        messages[index] = _with_text(messages[index], part, f"{_SPACE}{name}{_SPACE}")
    made_up = renderer.render(conversation.with_message_list(messages))
    places: dict[tuple[int, int], WrittenContent] = {}
    position = before = 0  # in the text, and in the text with made-up contents
    for (index, part), (content, first) in contents.items():
        name = names[index, part]
        with naming_message(index):
            found = made_up.find(name, before)
            if made_up.count(name) > 1:
                raise RowError("the chat template writes its content several times; cannot verify its mask")
            if found < 0:
                if name in made_up:
                    raise RowError("the chat template writes messages in another order; cannot verify its mask")
                continue
            keeps = made_up.endswith(_SPACE, before, found), made_up.startswith(_SPACE, found + len(name))
            left = content if keeps[0] else content.lstrip()
            written = left if keeps[1] else left.rstrip()
            constant = made_up[before : found - len(_SPACE) * keeps[0]]
            start = position + len(constant)
            if text[position:start] != constant or not text.startswith(written, start):
                raise RowError("the chat template does not write its content unchanged; cannot verify its mask")
        places[index, part] = WrittenContent(start, start + len(written), first + len(content) - len(left))
        position, before = start + len(written), found + len(name) + len(_SPACE) * keeps[1]
    if text[position:] != made_up[before:]:
        raise RowError(
            "what the chat template writes depends on the content of a message of roles_to_train; cannot verify a mask"
        )
    return places


def _with_text(message: Message, part: int, text: str) -> Message:
    """Return a message with another text as its content, or as a part of it."""
    key = "content" if "content" in message else "value"
    if part == _WHOLE:
        return {**message, key: text}
    parts = list(message[key])
    parts[part] = {**parts[part], "text": text} if isinstance(parts[part], Mapping) else text
    return {**message, key: parts}
