"""Which of the turns that a conversation has carry a loss: what the config and the messages themselves say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from sftkit.core.message_fields import LOSS_FLAGS, TRAIN_FLAG
from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Message, assistant_indices
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.reasoning import answer_start

ALL, LAST_ASSISTANT = "all", "last_assistant"


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
    def needs_turn_owners(self) -> bool:
        """Whether it matters which message a trained span belongs to."""
        return self.train_on == LAST_ASSISTANT or self.reasoning_masked

    def spans(self, text: str, turns: Sequence[Turn], messages: Sequence[Message]) -> list[Span]:
        """The spans of the turns that carry a loss.

        Raises:
            RowError: a message's flag is neither yes nor no, or where the reasoning of a turn ends cannot be told.
        """
        flagged = have_train_flags(messages)
        if not self.needs_turn_owners and not flagged:
            return [(start, end) for _, start, end in turns]
        chosen = turns
        if self.train_on == LAST_ASSISTANT and turns:
            chosen = [turn for turn in turns if turn[0] == turns[-1][0]]
        if flagged:
            left_out = untrained_messages(messages)
            chosen = [turn for turn in chosen if turn[0] not in left_out]
        if self.reasoning_masked:
            return [(reasoned, turn[2]) for turn in chosen for _, reasoned in [reasoning_span(text, turn, messages)]]
        return [(start, end) for _, start, end in chosen]

    def trained_turns(self, messages: Sequence[Message]) -> list[int]:
        """Places of the assistant's messages that carry a loss.

        Raises:
            RowError: there is no assistant turn, or a flag is neither yes nor no.
        """
        places = assistant_indices(messages)
        left_out = untrained_messages(messages)
        return [
            place for place in (places[-1:] if self.train_on == LAST_ASSISTANT else places) if place not in left_out
        ]


def reasoning_span(text: str, turn: Turn, messages: Sequence[Message]) -> Span:
    """The reasoning that a turn begins with, and what closes it; empty where there is none.

    Raises:
        RowError: where it ends cannot be told.
    """
    place, start, end = turn
    try:
        return start, answer_start(text, start, end, messages[place])
    except RowError as error:
        raise RowError(f"message {place}: {error}") from None


def spans_outside(spans: Iterable[Span], length: int) -> list[Span]:
    """What of a text of so many characters lies in none of some spans."""
    left: list[Span] = []
    edge = 0
    for start, end in sorted(spans):
        if edge < start:
            left.append((edge, start))
        edge = max(edge, end)
    return [*left, (edge, length)] if edge < length else left


def have_train_flags(messages: Sequence[Message]) -> bool:
    """Whether any message says of itself whether it is trained."""
    names = chain.from_iterable(messages)
    return not frozenset(LOSS_FLAGS).isdisjoint(names)


def untrained_messages(messages: Sequence[Message]) -> frozenset[int]:
    """Places of the messages that say that they carry no loss. Every flag is looked at, also of messages that carry
    none anyway: one that cannot be understood is a mistake in the data.

    Raises:
        RowError: as `is_trained`.
    """
    return frozenset(place for place, message in enumerate(messages) if not is_trained(message, place))


def is_trained(message: Message, place: int) -> bool:
    """What a message says of itself with `train: false`, `weight: 0` or `loss_weight: 0`; null says nothing.

    Raises:
        RowError: `train` is not true or false, a weight not 0 or 1.
    """
    flags = {key: message[key] for key in LOSS_FLAGS if message.get(key) is not None}
    for key, value in flags.items():
        if value not in (0, 1):
            wanted = "true or false" if key == TRAIN_FLAG else "0 or 1"
            raise RowError(f"{key!r} of message {place} must be {wanted}, not {value!r}")
    return all(flags.values())
