"""Splits the tokens of a conversation into its turns, by the headers that the chat template writes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.expectations.id_sequences import ends_with
from sftkit.audit.expectations.message_headers import LONGEST
from sftkit.core.row_kinds import RowKind
from sftkit.core.rows import Mask

_ROLE = re.compile(r"\s*([A-Za-z_][\w.-]{0,30})\s*")
_MAX_ROLE_TOKENS = 8

_ASSISTANT = "assistant"

_Header = tuple[tuple[int, ...], str]
"""The token ids that start a message, and its role."""

_TurnStart = tuple[int, str | None]
"""The position of a turn's first token, and its role."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a row; where messages are unknown, a run of tokens that are all trained or all not."""

    start: int
    """First token; tokens [start, stop) of the row, including the header of the message."""
    stop: int
    role: str | None
    """None when unknown; `system+user` where the template writes both under one header."""
    sequence: int
    """Index of the turn's sequence within its pack; 0 where rows are not packed."""
    trained_tokens: int | None
    """Number of its tokens that carry a loss; None when unknown."""


@dataclass(frozen=True)
class RowTokens:
    """The tokens of one row, to be split into turns."""

    ids: Sequence[int]
    texts: Sequence[str | None]
    """What each token adds to the text; None when unknown."""
    special: Sequence[bool]
    """Whether each is a special token."""
    trained: Mask | None
    """Whether each carries a loss, bool, shape (tokens,); None when unknown."""
    sequences: Sequence[tuple[int, int]]
    """Ranges [start, stop) of the sequences in the row."""
    packed: bool = False
    """Whether the row is a pack, in which the first token of a sequence never carries a loss."""


def split_turns(row: RowTokens, expectations: Expectations, in_content: Collection[int]) -> tuple[Turn, ...]:
    """Split a row where messages start; without any, where trained and untrained tokens meet.

    Args:
        row: the tokens to split; no turn spans two of its sequences.
        expectations: the headers that start messages, and their roles.
        in_content: positions of special tokens that come from the content and start no message.
    """
    turns = []
    for number, (start, stop) in enumerate(row.sequences):
        if start == stop:
            continue
        starts = _message_starts(row, start, stop, expectations, frozenset(in_content))
        starts = starts or list(_loss_edges(row, start, stop))
        if not starts or starts[0][0] > start:
            if starts and _is_blank(row, start, starts[0][0]):  # a BOS, or padding
                starts[0] = (start, starts[0][1])
            else:
                starts.insert(0, (start, None))
        ends = [*(position for position, _ in starts[1:]), stop]
        for (position, role), end in zip(starts, ends, strict=True):
            trained = None if row.trained is None else int(np.count_nonzero(row.trained[position:end]))
            turns.append(Turn(position, end, role, number, trained))
    return tuple(turns)


def _message_starts(
    row: RowTokens, start: int, stop: int, expectations: Expectations, in_content: frozenset[int]
) -> list[_TurnStart]:
    """Return where messages start in [start, stop).

    Headers without special tokens count only if no header has any, since templates may also write such words within a
    message.
    """
    if expectations.origin.kind == RowKind.TEXT:
        return []  # its prompts are response templates; the text before them is no message
    prompts = [(prompt, _ASSISTANT) for prompt in expectations.prompts]
    headers = _whole_headers(list(zip(expectations.headers, expectations.roles, strict=True)))
    special = frozenset(expectations.special)
    marked = [*prompts, *((header, role) for header, role in headers if special.intersection(header))]
    found = list(_find_headers(row, start, stop, marked, expectations, in_content))
    if any(role != _ASSISTANT for _, role in found):
        return found
    return list(_find_headers(row, start, stop, [*prompts, *headers], expectations, in_content))


def _whole_headers(headers: Sequence[_Header]) -> list[_Header]:
    """Leave out headers that were cut, and begin amid a default system prompt, if their end is a header as well."""
    return [
        (header, role)
        for header, role in headers
        if len(header) < LONGEST
        or not any(other != header and own == role and ends_with(header, other) for other, own in headers)
    ]


def _find_headers(
    row: RowTokens,
    start: int,
    stop: int,
    headers: Sequence[_Header],
    expectations: Expectations,
    in_content: frozenset[int],
) -> Iterator[_TurnStart]:
    """Yield where one of the headers stands, or the special token that starts one, followed by an unknown role."""
    by_first_id: dict[int, list[_Header]] = {}
    for header in sorted(headers, key=lambda item: -len(item[0])):
        by_first_id.setdefault(header[0][0], []).append(header)
    openers = frozenset(expectations.openers) & by_first_id.keys()
    position = start
    while position < stop:
        value = row.ids[position]
        if value in by_first_id and position not in in_content:
            match = next((item for item in by_first_id[value] if _matches(row.ids, position, stop, item[0])), None)
            if match is not None:
                yield position, match[1]
                position += len(match[0])
                continue
            if value in openers:
                yield position, _role_at(row, position + 1, stop)
        position += 1


def _matches(ids: Sequence[int], position: int, stop: int, expected: tuple[int, ...]) -> bool:
    return position + len(expected) <= stop and tuple(ids[position : position + len(expected)]) == expected


def _role_at(row: RowTokens, start: int, stop: int) -> str | None:
    """Read the role after the token that starts a header: a word alone on its line, None when there is none."""
    text = ""
    for position in range(start, min(stop, start + _MAX_ROLE_TOKENS)):
        piece = row.texts[position] or ""
        if row.special[position] or "\n" in text:
            break
        text += piece
    match = _ROLE.fullmatch(text.split("\n")[0])
    return match[1] if match is not None else None


def _loss_edges(row: RowTokens, start: int, stop: int) -> Iterator[_TurnStart]:
    """Yield where trained and untrained tokens meet."""
    # In a pack the first token of a sequence never carries a loss, so it says nothing about its turn.
    first = start + row.packed
    if row.trained is None or stop - first < 2:
        return
    for edge in np.flatnonzero(row.trained[first + 1 : stop] != row.trained[first : stop - 1]).tolist():
        yield first + edge + 1, None


def _is_blank(row: RowTokens, start: int, stop: int) -> bool:
    return all(row.special[i] or not (row.texts[i] or "").strip() for i in range(start, stop))
