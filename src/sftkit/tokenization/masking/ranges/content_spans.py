"""Carries characters of a message's content to the text that the chat template made of it, or refuses to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from sftkit.core.row_log import RowError
from sftkit.core.token_kinds import TokenKind
from sftkit.tokenization.conversations import Message, reasoning_texts, text_after_reasoning, text_of
from sftkit.tokenization.encoding.spans import Span, outside
from sftkit.tokenization.masking.reasoning import answer_start
from sftkit.tokenization.masking.turn_parts import call_names, is_call, turn_parts


def carry_to_text(spans: Sequence[Span], text: str, places: Iterable[Span], content: str) -> list[Span]:
    """Return where characters of a content are in a text.

    The content must be there exactly once, with or without the white space at its ends; characters that the template
    stripped are nowhere.

    Args:
        spans: the characters of the content.
        text: the whole conversation.
        places: the parts of the text that may hold the content, ordered and disjoint.
        content: the content.

    Raises:
        RowError: the content is there not once, or with a part of the white space that the characters are about.

    Example:
        >>> text = "<|assistant|>two plus two</s>"
        >>> [text[start:end] for start, end in carry_to_text([(1, 5)], text, [(13, 25)], " two plus two ")]
        ['two ']
    """
    spans = [(start, end) for start, end in spans if start < end]
    if not spans:
        return []
    stripped = content.strip()
    found = [(at, start, end) for start, end in places for at in _find_all(stripped, text, start, end)]
    if len(found) != 1:
        often = "several times" if found else "not unchanged"
        raise RowError(
            f"the chat template writes its content {often}, so the characters to train are not known; use 'train' to "
            "train all or nothing of it"
        )
    [(at, first, last)] = found
    shift = at - (len(content) - len(content.lstrip()))
    start, end = at, at + len(stripped)
    while start > max(first, shift) and text[start - 1] == content[start - 1 - shift]:
        start -= 1
    while end < min(last, shift + len(content)) and text[end] == content[end - shift]:
        end += 1
    whole = shift, shift + len(content)
    for edge, outer, inner in ((start, whole[0], at), (end, whole[1], at + len(stripped))):
        lost = sorted((outer, inner))
        if edge not in (outer, inner) and any(
            begin + shift < lost[1] and lost[0] < after + shift for begin, after in spans
        ):
            raise RowError(
                "the chat template writes a part of the white space around its content, so the characters to train are "
                "not known; remove this white space"
            )
    carried = [(max(begin + shift, start), min(after + shift, end)) for begin, after in spans]
    return [(begin, after) for begin, after in carried if begin < after]


def content_places(text: str, turn: Span, stop: int, message: Message) -> list[Span]:
    """Return the parts of a turn that may hold the content of its message: not its reasoning, calls and stop token.

    Args:
        text: the whole conversation.
        turn: the produced part of the turn.
        stop: where its stop token starts.
        message: the message of the turn.

    Raises:
        RowError: it is unknown where its reasoning ends, or where its tool calls are.
    """
    start, _ = turn
    content = text_of(message)
    if reasoning_texts(message):
        start = answer_start(text, *turn, message)
    elif text_after_reasoning(content) == content.strip():  # else the content holds reasoning
        with suppress(RowError):
            start = answer_start(text, *turn, message)
    calls: list[Span] = []
    if call_names(message) and not is_call(message):
        parts = turn_parts(text, turn, stop, message)
        calls = [(part.start, part.end) for part in parts if part.kind == TokenKind.TOOL_CALL]
        if not calls:
            raise RowError("cannot find where the tool calls of this turn are, beside which its content must be")
    return outside(calls, start, stop)


def _find_all(piece: str, text: str, start: int, end: int) -> list[int]:
    """Return where a text occurs, at most twice; a text without characters occurs nowhere."""
    positions: list[int] = []
    while piece and len(positions) < 2 and (start := text.find(piece, start, end)) >= 0:
        positions.append(start)
        start += 1
    return positions
