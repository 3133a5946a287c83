"""Reads which characters of a message's content carry a loss: `train_ranges`, and content parts with `train: false`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from sftkit.config.words import is_null_word, parse_boolean
from sftkit.core.message_fields import PARTIAL_LOSS_FLAGS, TRAIN_FLAGS, TRAIN_RANGES
from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message, content_of, text_of
from sftkit.tokenization.encoding.spans import Span, merged, outside

_EDGES = {TRAIN_RANGES: ("begin", "end")}
_AXOLOTL_EDGES = ("begin_offset", "end_offset")
_TEXT = "text"


class TrainRange(NamedTuple):
    """Characters [begin, end) of a content, and whether they carry a loss."""

    begin: int
    end: int
    is_trained: bool


class TrainRanges(NamedTuple):
    """The ranges of a message, and what they mean for the rest of its content."""

    key: str
    """The key of the message that holds them."""
    ranges: Sequence[TrainRange]
    trains_rest: bool
    """Whether characters outside of all ranges carry a loss."""

    def untrained(self, length: int) -> list[Span]:
        """Return the characters without a loss of a content of `length` characters, ordered and disjoint."""
        trained = [(each.begin, each.end) for each in self.ranges if each.is_trained]
        if not self.trains_rest:
            return outside(trained, 0, length)
        excluded = [(each.begin, each.end) for each in self.ranges if not each.is_trained]
        return merged(excluded)


def train_ranges(message: Message, index: int) -> TrainRanges | None:
    """Return the ranges of a message's content that carry a loss or none; None if it has no ranges.

    `train_ranges` has ranges [begin, end). If all of them have `train: false`, the rest of the content carries a loss,
    else it carries none. axolotl's `train_detail` and `training_detail` have `begin_offset` and an inclusive
    `end_offset`, and the rest of the content never carries a loss.

    Raises:
        RowError: ranges are not valid, contradict each other, or end after the content.

    Example:
        >>> message = {"content": "2 + 2 = 5", "train_ranges": [{"begin": 8, "end": 9, "train": False}]}
        >>> train_ranges(message, 1).untrained(9)
        [(8, 9)]
    """
    keys = [key for key in PARTIAL_LOSS_FLAGS if message.get(key) and not is_null_word(message[key])]
    if not keys:
        return None
    if len(keys) > 1:
        raise RowError(f"message {index} has {' and '.join(map(repr, keys))}; give its ranges once")
    [key] = keys
    given = message[key]
    if not isinstance(given, list):
        raise RowError(f"{key!r} of message {index} must be a list of ranges, not {given!r}")
    length = len(text_of(message))
    ranges = [_read(value, f"{key}[{number}] of message {index}", key, length) for number, value in enumerate(given)]
    _check_agreement(ranges, key, index)
    return TrainRanges(key, ranges, key == TRAIN_RANGES and not any(each.is_trained for each in ranges))


def have_ranges(messages: Sequence[Message]) -> bool:
    """Return whether any message has ranges, which may be invalid."""
    return any(message.get(key) for message in messages for key in PARTIAL_LOSS_FLAGS)


def with_ranges_of_parts(conversation: Conversation) -> Conversation:
    """Return a conversation whose messages have `train_ranges` for their content parts with `train: false`.

    Content parts may be joined to one text, which has no place for their flags.

    Raises:
        RowError: a flag of a part is not valid, or a message with such parts has others than texts, or ranges as well.
    """
    if not conversation.has_messages or conversation.plain is not None or list not in conversation.shape.types:
        return conversation
    messages = conversation.message_list
    if not any(_flagged_parts(message) for message in messages):
        return conversation
    return conversation.with_message_list(
        [_with_ranges(message, index) if _flagged_parts(message) else message for index, message in enumerate(messages)]
    )


def check_same_contents(before: Conversation, after: Conversation) -> None:
    """Check that no content was escaped whose characters the ranges of a message count.

    Raises:
        RowError: one was.
    """
    if not before.has_messages or before.plain is not None or not have_ranges(before.message_list):
        return
    for index, (old, new) in enumerate(zip(before.message_list, after.message_list, strict=True)):
        if have_ranges([old]) and text_of(old) != text_of(new):
            raise RowError(
                f"message {index} has ranges and contains a special token; special_tokens_in_content=escape would move "
                "the characters that they count"
            )


def _read(value: Any, place: str, key: str, length: int) -> TrainRange:
    """Read one range; `place` names it in errors."""
    first, last = _EDGES.get(key, _AXOLOTL_EDGES)
    fields = {name: each for name, each in value.items() if each is not None} if isinstance(value, Mapping) else None
    if fields is None or set(fields) != {first, last, "train"}:
        raise RowError(f"{place} must have {first}, {last} and train, and nothing else, not {value!r}")
    for name in (first, last):
        if type(fields[name]) is not int:
            raise RowError(f"{name} of {place} must be a whole number, not {fields[name]!r}")
    begin, end = fields[first], fields[last] + (key != TRAIN_RANGES)
    shown = f"{place} ({first} {fields[first]}, {last} {fields[last]})"
    if begin < 0 or end < begin:
        raise RowError(f"{shown} must begin at 0 or later and not end before it begins")
    if end > length:
        raise RowError(f"{shown} ends after the content, which has {length} characters")
    return TrainRange(begin, end, _train(fields["train"], f"train of {place}"))


def _train(value: Any, place: str) -> bool:
    flag = parse_boolean(value) if isinstance(value, (bool, str)) else None
    if flag is None and value in (0, 1):
        flag = bool(value)
    if flag is None:
        raise RowError(f"{place} must be true or false, not {value!r}")
    return flag


def _check_agreement(ranges: Sequence[TrainRange], key: str, index: int) -> None:
    """Check that no character is both in a range with and in a range without a loss."""
    trained, untrained = (
        merged((each.begin, each.end) for each in ranges if each.is_trained is flag) for flag in (True, False)
    )
    tagged = sorted([*((*span, True) for span in trained), *((*span, False) for span in untrained)])
    for (_, end, _), (next_begin, next_end, _) in pairwise(tagged):
        if next_begin < end:
            shared = next_begin, min(end, next_end)
            raise RowError(
                f"ranges of {key!r} of message {index} contradict each other about the characters "
                f"{shared[0]} to {shared[1]} of its content"
            )


def _flagged_parts(message: Message) -> bool:
    content = content_of(message)
    return isinstance(content, list) and any(_flags(part) for part in content)


def _flags(part: Any) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        return {}
    return {key: part[key] for key in TRAIN_FLAGS if part.get(key) is not None and not is_null_word(part[key])}


def _with_ranges(message: Message, index: int) -> Message:
    """Return a message with the ranges of its parts, and the parts without their flags."""
    if have_ranges([message]):
        raise RowError(f"message {index} has ranges and parts with flags; give them once")
    ranges, parts, position = [], [], 0
    for number, part in enumerate(content_of(message)):
        text = part.get(_TEXT) if isinstance(part, Mapping) and part.get("type", _TEXT) == _TEXT else part
        if not isinstance(text, str):
            raise RowError(f"part {number} of message {index} must be text, since flags choose among its parts")
        flags = {_train(value, f"{key!r} of part {number} of message {index}") for key, value in _flags(part).items()}
        if len(flags) > 1:
            raise RowError(f"part {number} of message {index} has flags that contradict each other")
        if flags == {False}:
            ranges.append({"begin": position, "end": position + len(text), "train": False})
        position += len(text)
        is_object = isinstance(part, Mapping)
        parts.append({key: part[key] for key in part if key not in TRAIN_FLAGS} if is_object else part)
    return {**message, "content" if "content" in message else "value": parts, TRAIN_RANGES: ranges}
