"""The parts of a turn: reasoning, content, tool calls, stop token. They are found after the turn itself is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sftkit.core.row_log import RowError
from sftkit.core.token_kinds import TokenKind
from sftkit.tokenization.conversations import Message, role_of, text_after_reasoning, text_of
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.reasoning import answer_start

_CALL_ROLES = frozenset({"function_call", "assistant_tool_call"})
"""Roles of messages that are nothing but a call, in lower case."""


class Part(NamedTuple):
    """Trained characters [start, end) of one kind."""

    start: int
    end: int
    kind: TokenKind


def turn_parts(text: str, turn: Span, stop: int, message: Message) -> Iterator[Part]:
    """Yield the parts of a turn that are not content, in order; some may be empty.

    What cannot be told with certainty is content: the whole turn but its stop token if the end of the reasoning is
    unknown, and tool calls that stand neither before nor after the content of the message.

    Args:
        text: the whole conversation.
        turn: the produced part of the turn.
        stop: where its stop token starts; the end of the turn if it has none.
        message: the message of the turn; an empty one if it is unknown.

    Example:
        >>> text = "<think>hm</think>yes</s>"
        >>> [(text[start:end], kind.label) for start, end, kind in turn_parts(text, (0, 24), 20, {"content": "yes"})]
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
        [(2, 4, <TokenKind.REASONING: 2>), (4, 9, <TokenKind.CONTENT: 1>)]
    """
    filled: list[Part] = []

    def add(start: int, end: int, kind: TokenKind) -> None:
        if start < end and filled and filled[-1][1:] == (start, kind):
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


def _tool_calls(text: str, answer: int, stop: int, message: Message) -> Span | None:
    """Return what a template wrote for the calls of a message in [answer, stop); None if that is not certain."""
    role = role_of(message)
    if isinstance(role, str) and role.lower() in _CALL_ROLES:
        return answer, stop
    names = _function_names(message)
    if not names:
        return None
    span = _beside_content(text, answer, stop, text_of(message))
    return span if span is not None and all(name in text[slice(*span)] for name in names) else None


def _beside_content(text: str, answer: int, stop: int, content: str) -> Span | None:
    """Return what of [answer, stop) is before or after a content; None if it is not at either end."""
    if not text_after_reasoning(content):
        return answer, stop
    written = text[answer:stop]
    space = len(written) - len(written.lstrip())
    for variant in dict.fromkeys((content, content.strip(), text_after_reasoning(content))):
        for start in (0, space):
            if written.startswith(variant, start):
                return answer + start + len(variant), stop
        if written.rstrip().endswith(variant.rstrip()):
            return answer, answer + len(written.rstrip()) - len(variant.rstrip())
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    is_dropped = not any(line in written or json.dumps(line)[1:-1] in written for line in lines)
    return (answer, stop) if is_dropped else None


def _function_names(message: Message) -> list[str]:
    """Return the names of the functions that a message calls; none if a call has no name."""
    calls = message.get("tool_calls")
    listed = [*_listed(calls), *_listed(message.get("function_call"))]
    functions = [call.get("function", call) if isinstance(call, Mapping) else None for call in listed]
    names = [function.get("name") if isinstance(function, Mapping) else None for function in functions]
    known = [name for name in names if isinstance(name, str) and name]
    return known if len(known) == len(names) else []


def _listed(calls: Any) -> Sequence[Any]:
    """Return calls as a list; they may be one call, and JSON text."""
    if isinstance(calls, str):
        try:
            calls = json.loads(calls)
        except (ValueError, RecursionError):
            return ()
    if isinstance(calls, list):
        return calls
    return [calls] if isinstance(calls, Mapping) else ()
