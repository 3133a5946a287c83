"""The parts of a turn: reasoning, content, tool calls, stop token. They are found after the turn itself is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sftkit.core.row_log import RowError
from sftkit.core.token_kinds import TokenKind
from sftkit.core.weights.loss_weight_column import loss_weight
from sftkit.tokenization.conversations import Message, role_of, text_after_reasoning, text_of
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.reasoning import TAGS_ONLY, answer_start

_CALL_ROLES = frozenset({"function_call", "assistant_tool_call"})
"""Roles of messages that are nothing but a call, in lower case."""


class Part(NamedTuple):
    """Trained characters [start, end) of one kind and loss weight; or `untrained_part`."""

    start: int
    end: int
    kind: TokenKind
    weight: float = 1.0


def untrained_part(start: int, end: int) -> Part:
    """Return characters whose tokens carry no loss, even if other characters of these tokens do."""
    return Part(start, end, TokenKind.UNTRAINED, 0.0)


def turn_parts(text: str, turn: Span, stop: int, message: Message) -> Iterator[Part]:
    """Yield the parts of a turn that are not content, in order; some may be empty.

    What is not certain is content: the whole turn but its stop token if the end of the reasoning is
    unknown, and tool calls that stand neither before nor after the content of the message.

    Args:
        text: the whole conversation.
        turn: the produced part of the turn.
        stop: where its stop token starts; the end of the turn if it has none.
        message: the message of the turn; an empty one if it is unknown.

    Example:
        >>> text = "<think>hm</think>yes</s>"
        >>> [(text[start:end], kind.label) for start, end, kind, _ in turn_parts(text, (0, 24), 20, {"content": "yes"})]
        [('<think>hm</think>', 'reasoning'), ('</s>', 'stop')]
    """
    start, end = turn
    try:
        answer: int | None = min(answer_start(text, start, end, message), stop)
    except RowError:
        answer = None
    if answer is not None:
        yield Part(start, answer, TokenKind.REASONING)
        calls = _tool_calls(text, answer, stop, message)
        if calls is not None:
            yield Part(*calls, TokenKind.TOOL_CALL)
    yield Part(stop, end, TokenKind.STOP)


def fill_spans(spans: Sequence[Span], parts: Sequence[Part]) -> list[Part]:
    """Cut parts to the trained spans, and fill the rest of the spans with content; adjacent equal parts are joined.

    Args:
        spans: ordered and disjoint.
        parts: ordered and disjoint.

    Example:
        >>> [tuple(part) for part in fill_spans([(2, 9)], [Part(0, 4, TokenKind.REASONING)])]
        [(2, 4, <TokenKind.REASONING: 2>, 1.0), (4, 9, <TokenKind.CONTENT: 1>, 1.0)]
    """
    filled: list[Part] = []

    def add(start: int, end: int, kind: TokenKind) -> None:
        if start < end and filled and filled[-1][1:3] == (start, kind):
            filled[-1] = Part(filled[-1].start, end, kind)
        elif start < end:
            filled.append(Part(start, end, kind))

    first = 0
    for start, end in spans:
        while first < len(parts) and parts[first].end <= start:
            first += 1
        position = start
        for part in parts[first:]:
            if part.start >= end:
                break
            add(position, part.start, TokenKind.CONTENT)
            add(max(part.start, position), min(part.end, end), part.kind)
            position = max(position, min(part.end, end))
        add(position, end, TokenKind.CONTENT)
    return filled


def weigh_parts(parts: Sequence[Part], weights: Sequence[tuple[int, int, float]]) -> list[Part]:
    """Multiply the weights of parts inside of spans (start, end, weight); parts are cut at the ends of spans.

    Args:
        parts: ordered and disjoint.
        weights: ordered and disjoint.

    Raises:
        RowError: a product is not a finite float32.

    Example:
        >>> [tuple(part) for part in weigh_parts([Part(0, 9, TokenKind.CONTENT)], [(0, 4, 0.5)])]
        [(0, 4, <TokenKind.CONTENT: 1>, 0.5), (4, 9, <TokenKind.CONTENT: 1>, 1.0)]
    """
    weighed: list[Part] = []
    first = 0
    for part in parts:
        while first < len(weights) and weights[first][1] <= part.start:
            first += 1
        position = part.start
        for start, end, weight in weights[first:]:
            if start >= part.end:
                break
            inside = max(start, position), min(end, part.end)
            weighed += [part._replace(start=position, end=inside[0]), Part(*inside, part.kind, part.weight * weight)]
            position = inside[1]
        weighed.append(part._replace(start=position))
    if any(loss_weight(part.weight) is None for part in weighed):
        raise RowError("the loss weights of a message and of pattern_weights have a product that is too large")
    return [part for part in weighed if part.start < part.end]


def _tool_calls(text: str, answer: int, stop: int, message: Message) -> Span | None:
    """Return what a template wrote for the calls of a message in [answer, stop); None if that is not certain."""
    if is_call(message):
        return answer, stop
    calls = call_names(message)
    if not calls:
        return None
    span = _beside_content(text[answer:stop], text_of(message))
    written = text[answer + span[0] : answer + span[1]]
    is_certain = all(any(name in written for name in names) for names in calls)
    return (answer + span[0], answer + span[1]) if is_certain else None


def _beside_content(written: str, content: str) -> Span:
    """Return what of a turn without reasoning and stop token is before or after a content; (0, 0) if it is unknown."""
    end = len(written.rstrip())
    variants = [content, content.strip(), text_after_reasoning(content)]
    if not variants[-1]:
        return 0, len(written)
    for variant in dict.fromkeys(variants):
        start = written.find(variant)
        if start >= 0 and TAGS_ONLY.fullmatch(written, 0, start):
            return start + len(variant), len(written)
        if written.endswith(variant.rstrip(), 0, end):
            return 0, end - len(variant.rstrip())
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    is_dropped = not any(line in written or json.dumps(line)[1:-1] in written for line in lines)
    return (0, len(written)) if is_dropped else (0, 0)


def is_call(message: Message) -> bool:
    """Return whether a message is nothing but a call, by its role."""
    role = role_of(message)
    return isinstance(role, str) and role.lower() in _CALL_ROLES


def call_names(message: Message) -> list[list[str]]:
    """Return for each call of a message the names that show where it was written: of its function, and its id."""
    found = []
    for call in (*_listed(message.get("tool_calls")), *_listed(message.get("function_call"))):
        function = call.get("function")
        names = (function if isinstance(function, Mapping) else call).get("name"), call.get("id")
        found.append([name for name in names if isinstance(name, str) and name])
    return found


def _listed(calls: Any) -> list[Mapping[str, Any]]:
    """Return calls as a list; they may be one call, and JSON text."""
    if isinstance(calls, str):
        try:
            calls = json.loads(calls)
        except (ValueError, RecursionError):
            return []
    listed = calls if isinstance(calls, list) else [calls]
    return [call for call in listed if isinstance(call, Mapping)]
