"""Where in a turn the reasoning ends and the answer begins (`reasoning: mask`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sftkit.core.message_fields import REASONING_TAG_WORDS
from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Message, content_of, reasoning_texts

_TAG = rf"(?:</?[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>|\[/?(?:THINK|REASONING)\])"

REASONING_TAG = re.compile(rf"\s*{_TAG}", re.IGNORECASE)
"""White space and one tag of reasoning, opening or closing."""

REASONING_TAGS_AT_END = re.compile(rf"(?:{_TAG}\s*)+\Z", re.IGNORECASE)
"""What a generation prompt may end with to open, or to leave out, the model's reasoning: <think>, </think>,
<think>\\n\\n</think>, and the white space between."""

TAGS_ONLY = re.compile(r"(?:\s|<[^<>\s]*>|\[[^\[\]\s]*\]|(?<=\|>)\w+(?=<\|))*")
"""Tags, and words between them (`<|start|>assistant<|channel|>final<|message|>`)."""


_OPENING = rf"(?:<(?!/|\|?/?end)[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>|\[(?:THINK|REASONING)\])(?<!/>)"
_OPENS = re.compile(rf"\s*{_OPENING}", re.IGNORECASE)
_OPENED_BEFORE = re.compile(rf"{_OPENING}\s*\Z", re.IGNORECASE)
_CLOSES = re.compile(
    rf"(?:</[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>|<\|?/?end[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>|<\|/[^<>\s]*(?:{REASONING_TAG_WORDS})[^<>\s]*>"
    r"|\[/(?:THINK|REASONING)\])\s*",
    re.IGNORECASE,
)
_STOPS_ONLY = re.compile(r"(?:\s|<[^<>\s]*>|\[[^\[\]\s]*\])*")
_LONGEST_OPENING = 64  # characters, with the white space behind it


def answer_start(text: str, start: int, end: int, message: Message) -> int:
    """Where in the turn at [start, end) the answer begins, behind the reasoning and what closes it; the turn's start
    where it has none.

    Raises:
        RowError: the turn reasons, and nothing tells where that ends.
    """
    reasoned = _end_of_known_reasoning(text, start, end, message)
    if reasoned is None:
        # The prompt may have opened the reasoning: then the turn only closes it.
        opened = _OPENS.match(text, start, end) or _OPENED_BEFORE.search(text, max(0, start - _LONGEST_OPENING), start)
        closed = _CLOSES.search(text, start, end)
        if closed is not None and (opened is not None or closed.start() == start):
            return closed.end()
        if opened is not None:
            raise RowError("nothing closes the reasoning of a turn; cannot mask it")
        return start
    closed = _CLOSES.match(text, _behind_space(text, reasoned, end), end)
    return closed.end() if closed is not None else _start_of_answer(text, reasoned, end, _answer_of(message))


def _end_of_known_reasoning(text: str, start: int, end: int, message: Message) -> int | None:
    """Where in a turn the reasoning ends that the message holds in a field or part of its own; None where the template
    did not write it."""
    pieces, answer = reasoning_texts(message), _answer_of(message)
    if not pieces:
        return None
    begun = _behind_space(text, start, end)
    if answer and text.startswith(answer, begun, end):  # the same words may stand in the answer
        alone = _STOPS_ONLY.fullmatch(text, begun + len(answer), end) is not None
        if alone or not text.startswith(tuple(pieces), begun, end):
            return None
    closed = _CLOSES.search(text, start, end)
    if (
        closed is not None
        and _STOPS_ONLY.fullmatch(text, start, closed.start())
        and not 0 <= text.find(pieces[0], start) < closed.end()
    ):
        return None  # the block that the template writes is empty
    reasoned = start
    for piece in pieces:
        places = _places_of(piece, text, reasoned, end)
        # Words of the reasoning may stand in the tag that opens it.
        behind_tags = (place for place in places if TAGS_ONLY.fullmatch(text, reasoned, place))
        found = next(behind_tags, places[0] if places else None)
        reasoned = reasoned if found is None else found + len(piece)
    return reasoned if reasoned > start else None


def _start_of_answer(text: str, reasoned: int, end: int, answer: str) -> int:
    """Where an answer stands behind reasoning that no tag closes: between tags, or at the end.

    Raises:
        RowError: nowhere, or in several places.
    """
    places = _places_of(answer, text, reasoned, end) if answer else []
    led = [place for place in places if TAGS_ONLY.fullmatch(text, reasoned, place)]
    last = [place for place in places if _STOPS_ONLY.fullmatch(text, place + len(answer), end)]
    found = [place for place in led if place in last] or led or last
    if len(found) != 1:
        raise RowError("nothing tells where the reasoning of a turn ends; cannot mask it")
    return found[0]


def _places_of(piece: str, text: str, start: int, end: int) -> list[int]:
    places = []
    while (start := text.find(piece, start, end)) >= 0:
        places.append(start)
        start += 1
    return places


def _behind_space(text: str, start: int, end: int) -> int:
    while start < end and text[start].isspace():
        start += 1
    return start


def _answer_of(message: Message) -> str:
    content: Any = content_of(message)
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        content = next((text for text in texts if isinstance(text, str)), "")
    return content.strip() if isinstance(content, str) else ""
