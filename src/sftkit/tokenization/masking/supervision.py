"""Selects what of the assistant turns carries a loss, by the config and by flags of messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from sftkit.config.words import is_null_word, parse_boolean
from sftkit.core.message_fields import LOSS_FLAGS, PARTIAL_LOSS_FLAGS, WEIGHT_FLAGS
from sftkit.core.row_log import RowError
from sftkit.core.weights.loss_weight_column import loss_weight
from sftkit.tokenization.conversations import Message, assistant_indices
from sftkit.tokenization.encoding.spans import Span, outside
from sftkit.tokenization.masking.ranges.content_spans import content_places
from sftkit.tokenization.masking.ranges.train_ranges import have_ranges, train_ranges
from sftkit.tokenization.masking.ranges.untrained_content import hidden_in_content, naming_message, untrained_content
from sftkit.tokenization.masking.train_on import ALL, ASSISTANT, TRAIN_ON, TrainOn, choose_turns, every_turn, last_turn
from sftkit.tokenization.masking.turn_masks import NO_MASKS, TurnMasks

_FLAGS = frozenset({*LOSS_FLAGS, *PARTIAL_LOSS_FLAGS})

StartOfStop = Callable[[str, int, int], int]
"""Returns where the stop token of the turn at [start, end) of a text starts: `TurnEnd.start_of_stop`."""

_FLAG_IN_TEXT = (
    "a message is excluded from the loss (by a flag), which a text column cannot express; "
    "use tokenize_and_apply_chat_template_with_masking"
)
_RANGES_IN_TEXT = (
    "a message trains ranges of its content, which a text column cannot express; "
    "use tokenize_and_apply_chat_template_with_masking"
)
_WEIGHT_IN_TEXT = (
    "a message has a loss weight, which a text column cannot express; use tokenize_and_apply_chat_template_with_masking"
)


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
    mask_pattern: str | None = None
    """A regular expression (RE2) whose matches in the contents of trained turns carry no loss."""

    def __post_init__(self) -> None:
        """Load the plugin, if `train_on` names one."""
        _ = self._strategy

    @cached_property
    def _strategy(self) -> TrainOn:
        return TRAIN_ON[self.train_on]

    @property
    def needs_turn_owners(self) -> bool:
        """Whether the result depends on which message a span belongs to."""
        return self.train_on != ASSISTANT or self.hides_something(())

    def hides_something(self, messages: Sequence[Message]) -> bool:
        """Return whether trained turns may have parts that carry no loss, by the config or by ranges of messages."""
        return self.masks.hide_something or self.mask_pattern is not None or have_ranges(messages)

    def needs_stops(self, messages: Sequence[Message]) -> bool:
        """Return whether it matters where the stop tokens of turns start."""
        return self.masks.need_stops or self.mask_pattern is not None or have_ranges(messages)

    def trains_all_turns(self, keys: frozenset[str]) -> bool:
        """Return whether all turns of a conversation carry a loss, given the keys of all its messages."""
        return not self.needs_turn_owners and _FLAGS.isdisjoint(keys)

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
        if self._strategy is last_turn:  # of those that the template renders
            trained = {turn.message for turn in turns[-1:]} - untrained_messages(messages)
        else:
            trained = set(self.trained_turns(messages))
        chosen = [turn for turn in turns if turn.message in trained]
        if not self.hides_something(messages):
            return [(turn.start, turn.end) for turn in chosen]
        hidden = self.hidden_spans(text, chosen, messages, start_of_stop)
        return [span for turn, cut in zip(chosen, hidden, strict=True) for span in outside(cut, turn.start, turn.end)]

    def hidden_spans(
        self,
        text: str,
        turns: Sequence[AssistantTurn],
        messages: Sequence[Message],
        start_of_stop: StartOfStop | None = None,
        last: int | None = None,
    ) -> list[list[Span]]:
        """Return what of each trained turn carries no loss by `masks`, `mask_pattern` and the ranges of its message.

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
        places: dict[int, list[Span]] = {index: [] for index in {turn.message for turn in turns}}
        wanted = {index: self._untrained_content(messages[index], index) for index in places}
        for index, start, end in turns:
            message, stop = messages[index], end if start_of_stop is None else start_of_stop(text, start, end)
            with naming_message(index):
                found.append(list(self.masks.hidden(text, (start, end), stop, message, is_last=index == last)))
                if wanted[index]:
                    places[index] += content_places(text, (start, end), stop, message)
        cut = {
            index: hidden_in_content(text, places[index], messages[index], index, spans)
            for index, spans in wanted.items()
        }
        return [[*hidden, *cut[turn.message]] for turn, hidden in zip(turns, found, strict=True)]

    def _untrained_content(self, message: Message, index: int) -> list[Span]:
        if not self.hides_something([message]) or train_flag(message, index) is False:
            return []
        return untrained_content(message, index, self.mask_pattern)

    def trained_turns(self, messages: Sequence[Message]) -> list[int]:
        """Return the indices of the assistant messages that carry a loss.

        Raises:
            RowError: there is no assistant message, a loss flag is invalid, or `train_on` refused.
        """
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
        return bool(wanted) and not wanted <= set(self.trained_turns(messages))

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


def have_train_flags(messages: Sequence[Message]) -> bool:
    """Return whether any message has a field that may exclude it from the loss."""
    return not _FLAGS.isdisjoint(chain.from_iterable(messages))


def untrained_messages(messages: Sequence[Message]) -> frozenset[int]:
    """Return the indices of the messages that exclude themselves from the loss.

    The flags of all messages are checked, also where they have no effect: an invalid flag is a mistake in the data.

    Raises:
        RowError: as `train_flag`.
    """
    return frozenset(index for index, message in enumerate(messages) if train_flag(message, index) is False)


def have_weights(messages: Sequence[Message]) -> bool:
    """Return whether any message has a loss weight other than 0 and 1, which may be invalid."""
    values = [message[key] for message in messages for key in WEIGHT_FLAGS if key in message]
    return any(isinstance(value, (int, float)) and value not in (0, 1) for value in values)


def message_weights(messages: Sequence[Message]) -> dict[int, float]:
    """Return the loss weights of the messages that have one other than 0 and 1, by the index of the message.

    Raises:
        RowError: as `train_flag`.

    Example:
        >>> message_weights([{"role": "assistant", "weight": weight} for weight in (0.5, 1, 0, None)])
        {0: 0.5}
    """
    if not have_weights(messages):
        return {}
    flags = [_flags(message, index) for index, message in enumerate(messages)]
    return {index: value for index, each in enumerate(flags) for value in each.values() if value not in (0, 1)}


def check_flags_for_text(messages: Sequence[Message]) -> None:
    """Check that no flag excludes a message from the loss or weighs it, since a column of text cannot say so.

    Raises:
        RowError: a message is excluded or weighed, or as `train_flag`.
    """
    if have_train_flags(messages) and untrained_messages(messages):
        raise RowError(_FLAG_IN_TEXT)
    if have_ranges(messages):
        raise RowError(_RANGES_IN_TEXT)
    if message_weights(messages):
        raise RowError(_WEIGHT_IN_TEXT)


def train_flag(message: Message, index: int) -> bool | None:
    """Return whether the flags of a message ask for a loss (`train: false`, `weight: 0.5`); None if it has no flag.

    A flag that is null is ignored. Ranges ask for a loss if one of them does.

    Raises:
        RowError: a flag is not true or false, a weight is no number of 0 or more, two flags contradict each other, or
            ranges are invalid.

    Example:
        >>> train_flag({"role": "assistant", "content": "yes", "weight": 0}, 1)
        False
    """
    flags = _flags(message, index)
    ranges = train_ranges(message, index)
    if flags:
        return any(value > 0 for value in flags.values())
    return True if ranges is not None and any(each.is_trained for each in ranges.ranges) else None


def _flags(message: Message, index: int) -> dict[str, float]:
    """Return the flags of a message as weights, by their keys: 0 and 1 for false and true; raises as `train_flag`."""
    flags = {key: _flag_value(key, message[key], index) for key in LOSS_FLAGS if not _is_null(message.get(key))}
    weights = {value for key, value in flags.items() if key in WEIGHT_FLAGS}
    if len({value > 0 for value in flags.values()}) > 1 or len(weights) > 1:
        named = " and ".join(f"{key!r}: {message[key]!r}" for key in flags)
        raise RowError(f"message {index} has {named}, which contradict each other")
    return flags


def _flag_value(key: str, value: object, index: int) -> float:
    """Return a flag as a weight; it may be a boolean, a number or a word such as "false"."""
    flag = parse_boolean(value) if isinstance(value, (bool, str)) else None
    weight = loss_weight(value) if flag is None else float(flag)
    if weight is None or (key not in WEIGHT_FLAGS and weight not in (0, 1)):
        expected = "a number, 0 or more" if key in WEIGHT_FLAGS else "true or false"
        raise RowError(f"{key!r} of message {index} must be {expected}, not {value!r}")
    return weight


def _is_null(value: object) -> bool:
    return value is None or is_null_word(value)
