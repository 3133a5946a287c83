"""Which of the turns that a conversation has carry a loss: what the config and the messages themselves say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sftkit.rows import RowError
from sftkit.tokenization.conversations import Message, content_of, reasoning_of
from sftkit.tokenization.masks import Span

ALL, LAST_ASSISTANT = "all", "last_assistant"

_TRAIN, _WEIGHT = "train", "weight"
_FLAGS = frozenset({_TRAIN, _WEIGHT})
_WORDS = "think|reason|thought"
_OPENS_REASONING = re.compile(
    rf"\s*(?:<(?!/)[^<>\s]*(?:{_WORDS})[^<>\s]*>|\[(?:THINK|REASONING)\])(?<!/>)", re.IGNORECASE
)
_CLOSES_REASONING = re.compile(
    rf"(?:</[^<>\s]*(?:{_WORDS})[^<>\s]*>|<\|?/?end[^<>\s]*(?:{_WORDS})[^<>\s]*>|<\|/[^<>\s]*(?:{_WORDS})[^<>\s]*>"
    r"|\[/(?:THINK|REASONING)\])\s*",
    re.IGNORECASE,
)


Turn = tuple[int, int, int]
"""The place of an assistant's message, and the part of it that the model produces: characters [start, end) of the
rendered text."""


@dataclass(frozen=True)
class Supervision:
    """What of a conversation carries a loss.

    train_on: `assistant`, `last_assistant` or `all`. reasoning_masked: the reasoning of the turns is left out.
    """

    train_on: str = "assistant"
    reasoning_masked: bool = False

    @property
    def tells_messages_apart(self) -> bool:
        """Whether it matters which message a trained span belongs to."""
        return self.train_on == LAST_ASSISTANT or self.reasoning_masked

    def spans(self, text: str, turns: Sequence[Turn], messages: Sequence[Message]) -> list[Span]:
        """The spans of the turns that carry a loss.

        Raises:
            RowError: a message's flag is neither yes nor no, or where the reasoning of a turn ends cannot be told.
        """
        if not self.tells_messages_apart and not are_flagged(messages):
            return [(start, end) for _, start, end in turns]
        chosen = turns
        if self.train_on == LAST_ASSISTANT and turns:
            chosen = [turn for turn in turns if turn[0] == turns[-1][0]]
        if are_flagged(messages):
            chosen = [turn for turn in chosen if is_trained(messages[turn[0]], turn[0])]
        if self.reasoning_masked:
            return [(answer_start(text, turn, messages[turn[0]]), turn[2]) for turn in chosen]
        return [(start, end) for _, start, end in chosen]


def are_flagged(messages: Sequence[Message]) -> bool:
    """Whether any message says of itself whether it is trained."""
    names = chain.from_iterable(messages)
    return not _FLAGS.isdisjoint(names)


def is_trained(message: Message, place: int) -> bool:
    """What a message says of itself with `train: false` or `weight: 0`; null says nothing.

    Raises:
        RowError: `train` is not true or false, `weight` not 0 or 1.
    """
    train, weight = message.get(_TRAIN), message.get(_WEIGHT)
    for key, value in ((_TRAIN, train), (_WEIGHT, weight)):
        if value is not None and value not in (0, 1):
            wanted = "true or false" if key == _TRAIN else "0 or 1"
            raise RowError(f"{key!r} of message {place} must be {wanted}, not {value!r}")
    return train not in (False, 0) and weight != 0 if train is not None or weight is not None else True


def answer_start(text: str, turn: Turn, message: Message) -> int:
    """Where in a turn the answer begins, behind the reasoning and what closes it; the turn's start without any.

    Raises:
        RowError: the turn holds the message's reasoning, and nothing tells where it ends.
    """
    message_place, start, end = turn
    reasoned = start
    for piece in reasoning_of(message):
        found = text.find(piece, reasoned, end)
        reasoned = found + len(piece) if found >= 0 else reasoned
    if reasoned == start:
        opened = _OPENS_REASONING.match(text, start, end) is not None
        # A prompt may have opened the reasoning: then the turn only closes it.
        opened = opened or _OPENS_REASONING.search(text[max(0, start - 64) : start].rstrip()) is not None
        closed = _CLOSES_REASONING.search(text, start, end)
        if closed is None or not (opened or closed.start() == start):
            return start
        return closed.end()
    closed = _CLOSES_REASONING.match(text, reasoned + _spaces(text, reasoned), end)
    if closed is not None:
        return closed.end()
    answer = _answer_of(message)
    place = text.find(answer, reasoned, end) if answer else -1
    if place < 0:
        raise RowError(f"nothing tells where the reasoning of message {message_place} ends; cannot mask it")
    return place


def _spaces(text: str, start: int) -> int:
    """White space characters from a place on, of a few."""
    following = text[start : start + 64]
    return len(following) - len(following.lstrip())


def _answer_of(message: Message) -> str:
    content: Any = content_of(message)
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        content = next((text for text in texts if isinstance(text, str)), "")
    return content.strip() if isinstance(content, str) else ""
