"""Reads the flags and weights of messages: whether a message carries a loss, and how much it counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from sftkit.config.words import is_null_word, parse_boolean
from sftkit.core.message_fields import LOSS_FLAGS, PARTIAL_LOSS_FLAGS, WEIGHT_FLAGS
from sftkit.core.row_log import RowError
from sftkit.core.weights.loss_weight_column import loss_weight
from sftkit.tokenization.conversations import Message
from sftkit.tokenization.masking.ranges.train_ranges import have_ranges, train_ranges

FLAGS = frozenset({*LOSS_FLAGS, *PARTIAL_LOSS_FLAGS})
"""All fields of messages that are about their loss."""

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


def have_train_flags(messages: Sequence[Message]) -> bool:
    """Return whether any message has a field that may exclude it from the loss."""
    return not FLAGS.isdisjoint(chain.from_iterable(messages))


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
    if FLAGS.isdisjoint(message):
        return {}
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
