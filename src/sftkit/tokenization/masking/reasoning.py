"""Finds where the reasoning of a turn ends and the answer starts (`reasoning: mask`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sftkit.core.message_fields import REASONING_TAG_WORDS
from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Message, content_of, reasoning_texts

_TAG = rf"(?:</?[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>|\[/?(?:THINK|REASONING)\])"

REASONING_TAG = re.compile(rf"\s*{_TAG}", re.IGNORECASE)
"""White space and one reasoning tag, opening or closing."""

REASONING_TAGS_AT_END = re.compile(rf"(?:{_TAG}\s*)+\Z", re.IGNORECASE)
"""What a generation prompt may end with to open or to skip the reasoning: <think>, </think>, <think>\\n\\n</think>,
with the white space between them."""

TAGS_ONLY = re.compile(r"(?:\s|<[^<>\s]*>|\[[^\[\]\s]*\]|(?<=\|>)\w+(?=<\|))*")
"""Tags, and words between them (`<|start|>assistant<|channel|>final<|message|>`)."""

_OPENING_TAG = rf"(?:<(?!/|\|?/?end)[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>|\[(?:THINK|REASONING)\])(?<!/>)"
_OPENS = re.compile(rf"\s*{_OPENING_TAG}", re.IGNORECASE)
_OPENED_BEFORE = re.compile(rf"{_OPENING_TAG}\s*\Z", re.IGNORECASE)
_CLOSES = re.compile(
    rf"(?:</[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>"
    rf"|<\|?/?end[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>"
    rf"|<\|/[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>"
    r"|\[/(?:THINK|REASONING)\])\s*",
    re.IGNORECASE,
)
_END_TAGS_ONLY = re.compile(r"(?:\s|<[^<>\s]*>|\[[^\[\]\s]*\])*")
_MAX_OPENING_CHARACTERS = 64
"""Length of an opening tag with the white space after it."""


def answer_start(text: str, start: int, end: int, message: Message) -> int:
    """Return where the answer starts in the turn at [start, end): after the reasoning and its closing tag.

    The reasoning is found by the message's own reasoning field, if the template wrote it, else by reasoning tags.
    Without reasoning, the result is `start`.

    Raises:
        RowError: the turn has reasoning, and its end is unknown.

    Example:
        >>> text = "<think>hm</think> yes"
        >>> text[answer_start(text, 0, len(text), {"role": "assistant", "content": text}) :]
        'yes'
    """
    reasoning_end = _end_of_reasoning_field(text, start, end, message)
    if reasoning_end is None:
        # The prompt may have opened the reasoning, so that the turn only closes it.
        opened = _OPENS.match(text, start, end) or _OPENED_BEFORE.search(
            text, max(0, start - _MAX_OPENING_CHARACTERS), start
        )
        closed = _CLOSES.search(text, start, end)
        if closed is not None and (opened is not None or closed.start() == start):
            return closed.end()
        if opened is not None:
            raise RowError("the reasoning of this turn is not closed; cannot mask it")
        return start
    closed = _CLOSES.match(text, _skip_space(text, reasoning_end, end), end)
    return closed.end() if closed is not None else _find_answer(text, reasoning_end, end, _answer_of(message))


def _end_of_reasoning_field(text: str, start: int, end: int, message: Message) -> int | None:
    """Return where the text of the message's reasoning field or parts ends; None if the template did not write it."""
    pieces, answer = reasoning_texts(message), _answer_of(message)
    if not pieces:
        return None
    content_start = _skip_space(text, start, end)
    if answer and text.startswith(answer, content_start, end):  # the reasoning may occur in the answer as well
        is_answer_only = _END_TAGS_ONLY.fullmatch(text, content_start + len(answer), end) is not None
        if is_answer_only or not text.startswith(tuple(pieces), content_start, end):
            return None
    closed = _CLOSES.search(text, start, end)
    if (
        closed is not None
        and _END_TAGS_ONLY.fullmatch(text, start, closed.start())
        and not 0 <= text.find(pieces[0], start) < closed.end()
    ):
        return None  # the template wrote an empty reasoning block
    reasoning_end = start
    for piece in pieces:
        positions = _find_all(piece, text, reasoning_end, end)
        # The tag that opens the reasoning may contain the same words.
        after_tags = (position for position in positions if TAGS_ONLY.fullmatch(text, reasoning_end, position))
        found = next(after_tags, positions[0] if positions else None)
        reasoning_end = reasoning_end if found is None else found + len(piece)
    return reasoning_end if reasoning_end > start else None


def _find_answer(text: str, reasoning_end: int, end: int, answer: str) -> int:
    """Return where the answer starts after reasoning without a closing tag: between tags, or at the end of the turn.

    Raises:
        RowError: the answer does not occur, or occurs several times.
    """
    positions = _find_all(answer, text, reasoning_end, end) if answer else []
    after_tags = [position for position in positions if TAGS_ONLY.fullmatch(text, reasoning_end, position)]
    at_end = [position for position in positions if _END_TAGS_ONLY.fullmatch(text, position + len(answer), end)]
    found = [position for position in after_tags if position in at_end] or after_tags or at_end
    if len(found) != 1:
        raise RowError("cannot find where the reasoning of this turn ends; cannot mask it")
    return found[0]


def _find_all(piece: str, text: str, start: int, end: int) -> list[int]:
    positions = []
    while (start := text.find(piece, start, end)) >= 0:
        positions.append(start)
        start += 1
    return positions


def _skip_space(text: str, start: int, end: int) -> int:
    while start < end and text[start].isspace():
        start += 1
    return start


def _answer_of(message: Message) -> str:
    content: Any = content_of(message)
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        content = next((text for text in texts if isinstance(text, str)), "")
    return content.strip() if isinstance(content, str) else ""
