"""Selects what of the assistant turns carries a loss, by the config and by flags of messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sftkit.core.message_fields import ROLE_NAMES
from sftkit.tokenization.conversations import Message, assistant_indices, is_assistant, role_of, text_of
from sftkit.tokenization.encoding.spans import Span, outside
from sftkit.tokenization.masking.message_flags import FLAGS, have_train_flags, train_flag, untrained_messages
from sftkit.tokenization.masking.ranges.content_patterns import Patterns, WeightedSpan
from sftkit.tokenization.masking.ranges.content_spans import content_places
from sftkit.tokenization.masking.ranges.train_ranges import have_ranges
from sftkit.tokenization.masking.ranges.untrained_content import (
    NO_PATTERNS,
    hidden_in_content,
    naming_message,
    untrained_content,
)
from sftkit.tokenization.masking.train_on import ALL, ASSISTANT, TRAIN_ON, TrainOn, choose_turns, every_turn, last_turn
from sftkit.tokenization.masking.turn_masks import NO_MASKS, TurnMasks

ONLY_ASSISTANT = frozenset({ASSISTANT})

StartOfStop = Callable[[str, int, int], int]
"""Returns where the stop token of the turn at [start, end) of a text starts: `TurnEnd.start_of_stop`."""


class AssistantTurn(NamedTuple):
    """The part of an assistant message that the model produces: characters [start, end) of the rendered text."""

    message: int
    """Index of the message."""
    start: int
    end: int


@dataclass(frozen=True)
class Supervision:
    """Selects the trained spans of a conversation.

    Raises:
        ConfigError: `train_on` is the name of a plugin that cannot be loaded.
    """

    train_on: str = ASSISTANT
    """A key of `TRAIN_ON`. `all` is left to the callers, since it also trains text outside of turns."""
    masks: TurnMasks = NO_MASKS
    """What of trained turns carries no loss."""
    patterns: Patterns = NO_PATTERNS
    """Regular expressions whose matches in the contents of trained turns carry no loss, or one with a weight."""
    roles: frozenset[str] = ONLY_ASSISTANT
    """The roles whose messages carry a loss: `assistant`, `user`, `tool`, `system`."""
    trains_range_edges: bool = True
    """Whether a token is trained that has both characters with and characters without a loss by ranges or patterns."""

    def __post_init__(self) -> None:
        """Load the plugin, if `train_on` names one."""
        _ = self._strategy

    @cached_property
    def _strategy(self) -> TrainOn:
        return TRAIN_ON[self.train_on]

    @property
    def needs_turn_owners(self) -> bool:
        """Whether the result depends on which message a span belongs to."""
        return self.train_on != ASSISTANT or self.trains_other_roles or self.hides_something(())

    @property
    def trains_other_roles(self) -> bool:
        """Whether messages of other roles carry a loss, or the assistant's carry none."""
        return self.roles != ONLY_ASSISTANT

    def trains_turns(self, messages: Sequence[Message]) -> bool:
        """Return whether the assistant turns of a conversation have to be found; others may be all that is trained."""
        return not self.trains_other_roles or (ASSISTANT in self.roles and any(map(is_assistant, messages)))

    def other_messages(self, messages: Sequence[Message]) -> list[int]:
        """Return the indices of the messages of other roles than the assistant's that carry a loss; raises as flags."""
        others = self.roles - ONLY_ASSISTANT
        if not others:
            return []
        names = frozenset().union(*(ROLE_NAMES[role] for role in others))
        untrained = untrained_messages(messages) if have_train_flags(messages) else frozenset()
        return [
            index
            for index, each in enumerate(messages)
            if index not in untrained and str(role_of(each)).lower() in names
        ]

    def hides_something(self, messages: Sequence[Message]) -> bool:
        """Return whether trained turns may have parts that carry no loss, by the config or by ranges of messages."""
        return self.masks.hide_something or self.has_content_rules(messages)

    def has_content_rules(self, messages: Sequence[Message]) -> bool:
        """Return whether patterns or ranges of messages may be about characters of contents."""
        return bool(self.patterns.weights) or have_ranges(messages)

    def needs_parts(self, messages: Sequence[Message]) -> bool:
        """Return whether characters of contents may have weights of their own, or tokens at edges carry no loss."""
        return self.patterns.weigh_something or (not self.trains_range_edges and self.has_content_rules(messages))

    def needs_stops(self, messages: Sequence[Message]) -> bool:
        """Return whether it matters where the stop tokens of turns start."""
        return self.masks.need_stops or self.has_content_rules(messages)

    def trains_all_turns(self, keys: frozenset[str]) -> bool:
        """Return whether all turns of a conversation carry a loss, given the keys of all its messages."""
        return not self.needs_turn_owners and FLAGS.isdisjoint(keys)

    def spans(
        self,
        text: str,
        turns: Sequence[AssistantTurn],
        messages: Sequence[Message],
        start_of_stop: StartOfStop | None = None,
    ) -> list[Span]:
        """Return the trained spans of the turns found in a rendered text; `start_of_stop` as for `hidden_spans`.

        Raises:
            RowError: a loss flag is invalid, `train_on` refused, or as `hidden_spans`.
        """
        if not self.needs_turn_owners and not have_train_flags(messages):
            return [(turn.start, turn.end) for turn in turns]
        chosen = self.trained_of(turns, messages)
        if not self.hides_something(messages):
            return [(turn.start, turn.end) for turn in chosen]
        hidden = self.hidden_spans(text, chosen, messages, start_of_stop)
        return [span for turn, cut in zip(chosen, hidden, strict=True) for span in outside(cut, turn.start, turn.end)]

    def trained_of(self, turns: Sequence[AssistantTurn], messages: Sequence[Message]) -> list[AssistantTurn]:
        """Return the turns that carry a loss, of those found in a text; raises as `trained_turns`."""
        if not self.trains_turns(messages):
            return []
        if self._strategy is last_turn:  # of those that the template renders
            trained = {turn.message for turn in turns[-1:]} - untrained_messages(messages)
        else:
            trained = set(self.trained_turns(messages))
        return [turn for turn in turns if turn.message in trained]

    def hidden_spans(
        self,
        text: str,
        turns: Sequence[AssistantTurn],
        messages: Sequence[Message],
        start_of_stop: StartOfStop | None = None,
        last: int | None = None,
    ) -> list[list[Span]]:
        """Return what of each trained turn carries no loss by `masks`, `patterns` and the ranges of its message.

        Args:
            text: the rendered conversation.
            turns: its trained turns.
            messages: all messages.
            start_of_stop: not needed unless `needs_stops`.
            last: index of the message of the last trained turn; by default that of the last of `turns`.

        Raises:
            RowError: the end of the reasoning of a turn, its tool calls, or the content with ranges cannot be found.
        """
        if last is None:
            last = turns[-1].message if turns else -1
        found: list[list[Span]] = []
        for index, start, end in turns:
            stop = end if start_of_stop is None else start_of_stop(text, start, end)
            with naming_message(index):
                found.append(list(self.masks.hidden(text, (start, end), stop, messages[index], is_last=index == last)))
        cut = self.hidden_content(text, turns, messages, start_of_stop)
        return [[*hidden, *cut[turn.message]] for turn, hidden in zip(turns, found, strict=True)]

    def hidden_content(
        self,
        text: str,
        turns: Sequence[AssistantTurn],
        messages: Sequence[Message],
        start_of_stop: StartOfStop | None = None,
    ) -> dict[int, list[Span]]:
        """Return the characters of a text that carry no loss by `patterns` and ranges, by the message of each turn.

        Args and Raises: as `hidden_spans`.
        """
        wanted = {index: self._untrained_content(messages[index], index) for index in {turn.message for turn in turns}}
        places = _places(text, [turn for turn in turns if wanted[turn.message]], messages, start_of_stop)
        return {
            index: hidden_in_content(text, places.get(index, []), messages[index], index, spans)
            for index, spans in wanted.items()
        }

    def weighted_content(
        self,
        text: str,
        turns: Sequence[AssistantTurn],
        messages: Sequence[Message],
        start_of_stop: StartOfStop | None = None,
    ) -> list[WeightedSpan]:
        """Return the characters of a text that `patterns` weigh, ordered and disjoint.

        Args and Raises: as `hidden_spans`.
        """
        wanted = {
            index: [match for match in self.patterns.matches(text_of(messages[index])) if match[2] not in (0, 1)]
            for index in {turn.message for turn in turns}
        }
        places = _places(text, [turn for turn in turns if wanted[turn.message]], messages, start_of_stop)
        return sorted(
            (*span, weight)
            for index, matches in wanted.items()
            for start, end, weight in matches
            for span in hidden_in_content(text, places[index], messages[index], index, [(start, end)])
        )

    def _untrained_content(self, message: Message, index: int) -> list[Span]:
        if not self.hides_something([message]) or train_flag(message, index) is False:
            return []
        return untrained_content(message, index, self.patterns)

    def trained_turns(self, messages: Sequence[Message]) -> list[int]:
        """Return the indices of the assistant messages that carry a loss.

        Raises:
            RowError: there is no assistant message, a loss flag is invalid, or `train_on` refused.
        """
        if not self.trains_turns(messages):
            return []
        indices = assistant_indices(messages)
        trained = self._choose(messages, indices) - untrained_messages(messages)
        return [index for index in indices if index in trained]

    def has_unused_flag(self, messages: Sequence[Message]) -> bool:
        """Return whether a flag asks for a loss on a message that gets none: flags only exclude messages.

        Raises:
            RowError: a loss flag is invalid, or `train_on` refused.
        """
        if self.train_on == ALL or not have_train_flags(messages):
            return False
        wanted = {index for index, message in enumerate(messages) if train_flag(message, index)}
        return bool(wanted) and not wanted <= {*self.trained_turns(messages), *self.other_messages(messages)}

    def trained_responses(self, text: str, responses: Sequence[Span]) -> list[Span]:
        """Return the trained ones of the responses in a text; each counts as an assistant message with its text.

        Raises:
            RowError: `train_on` refused.
        """
        if self._strategy is every_turn:
            return list(responses)
        messages = [{"role": "assistant", "content": text[start:end]} for start, end in responses]
        trained = self._choose(messages, range(len(messages)))
        return [span for index, span in enumerate(responses) if index in trained]

    def _choose(self, messages: Sequence[Message], turns: Sequence[int]) -> frozenset[int]:
        return choose_turns(self.train_on, self._strategy, messages, turns)


def _places(
    text: str, turns: Sequence[AssistantTurn], messages: Sequence[Message], start_of_stop: StartOfStop | None
) -> dict[int, list[Span]]:
    """Return the parts of a text that may hold the contents of turns, by message; raises as `content_places`."""
    places: dict[int, list[Span]] = {}
    for index, start, end in turns:
        stop = end if start_of_stop is None else start_of_stop(text, start, end)
        with naming_message(index):
            places.setdefault(index, []).extend(content_places(text, (start, end), stop, messages[index]))
    return places
