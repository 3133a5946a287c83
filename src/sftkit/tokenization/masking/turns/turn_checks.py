"""Checks that refuse a row when the text found for an assistant turn may not be the turn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Message, assistant_indices, content_of, text_after_reasoning, text_of
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.supervision import AssistantTurn
from sftkit.tokenization.probing.message_spans import MessageSpans

_MIN_TEXT, _MIN_UNRENDERED_TEXT = 12, 4
"""Characters of the shortest text that is unlikely to occur in another turn by chance. For a message without a span of
its own, a shorter one is suspicious enough."""
_TAG = re.compile(r"<[^<>]*>")  # templates write tags themselves

_MANY_MESSAGES = 500
_MAX_COMPARISONS = 20_000_000
"""What one conversation may cost, in comparisons of a turn with a message, or with a thousand characters: about a
minute."""


def check_conversation_size(messages: Sequence[Message]) -> None:
    """Refuse a conversation that takes too long if each turn must be compared with all messages.

    Raises:
        RowError: it takes too long.
    """
    if len(messages) < _MANY_MESSAGES:
        return
    turns = len(assistant_indices(messages))
    thousands = sum(len(text_of(message)) for message in messages) // 1000
    if turns * (len(messages) + thousands) > _MAX_COMPARISONS:
        raise RowError(
            f"a conversation of {len(messages):,} messages is too long for this chat template, with which each turn "
            "must be compared with all messages; split it"
        )


def check_order(turns: Sequence[AssistantTurn]) -> None:
    """Refuse a row whose assistant turns, in the order of their messages, overlap or stand in another order.

    Raises:
        RowError: they do.
    """
    if any(second.start < first.end for first, second in pairwise(turns)):
        raise RowError("the assistant turns overlap, or are rendered in another order; cannot verify their masks")


def check_disjoint(spans: Sequence[Span]) -> None:
    """Refuse a row in which the trained characters of several messages overlap.

    Raises:
        RowError: they do.
    """
    if any(second[0] < first[1] for first, second in pairwise(sorted(spans))):
        raise RowError("messages of several roles are rendered together; cannot verify their masks")


def check_content_in_turn(text: str, start: int, end: int, message: Message) -> None:
    """Refuse a row if a content is rendered outside of its turn at [start, end), and not inside.

    Then the template moved the content, or the turn was not found correctly. A content that occurs nowhere was
    reformatted or omitted by the template, which is fine.

    Raises:
        RowError: the content is outside of its turn.
    """
    for piece in _content_pieces(message):
        if text.find(piece, start, end) < 0 and piece in text[end:] + text[:start]:
            raise RowError(
                "the content of an assistant message is rendered outside of its turn; cannot verify its mask"
            )


class ForeignTexts:
    """Finds the text of other messages in the produced part of a turn.

    It is there when a template renders a message, such as a system message, as a part of the turn. Text that the turn's
    own message contains as well (a quoted question) is accepted.
    """

    def __init__(self, messages: Sequence[Message], spans: MessageSpans) -> None:
        """Collect the texts of a conversation.

        Args:
            messages: all messages.
            spans: the messages that have a span of their own.
        """
        self._messages = messages
        texts = [(index, text_of(message).strip()) for index, message in enumerate(messages)]
        self._texts = [
            (index, said)
            for index, said in texts
            if len(_TAG.sub("", said)) >= (_MIN_TEXT if index in spans else _MIN_UNRENDERED_TEXT)
        ]

    def check(self, produced: str, index: int) -> None:
        """Refuse a row if what the model is trained to produce for a message contains the text of another one.

        Raises:
            RowError: it does.
        """
        for other, said in self._texts:
            if said not in produced or other == index:
                continue
            own = str(self._messages[index])
            if said not in own and repr(said)[1:-1] not in own:
                raise RowError(
                    f"message {index} is rendered with the text of message {other} in it; cannot verify its mask"
                )


def _content_pieces(message: Message) -> Iterator[str]:
    """The texts of a content that must occur in its turn, each without the reasoning at its start."""
    content: Any = content_of(message)
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            answer = text_after_reasoning(text)
            if answer:
                yield answer
