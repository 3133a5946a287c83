"""A row of a conversation cut into its turns, by what the chat template opens messages with."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.audit.expectations.expected import TEXT, Expectations
from sftkit.core.rows import Mask

_NAME = re.compile(r"\s*([A-Za-z_][\w.-]{0,30})\s*")
_LONGEST_NAME = 8  # tokens

_ANSWERS = "assistant"

_Named = tuple[tuple[int, ...], str]
"""What opens a message, and its role."""

_Opening = tuple[int, str | None]
"""Where a turn begins, and its role."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a row, or a part of it that is trained or is not, where messages cannot be told.

    start, stop: its tokens, [start, stop) of the row, what opens it among them. role: None where it cannot be told;
    `system+user` where the template writes both under one header. sequence: which one of a pack it belongs to, from 0.
    trained_tokens: how many of them carry a loss; None where nothing tells.
    """

    start: int
    stop: int
    role: str | None
    sequence: int
    trained_tokens: int | None


@dataclass(frozen=True)
class RowTokens:
    """One row to cut.

    ids: its tokens. texts: what each of them adds to the text, None where nothing tells. special: whether each is a
    special token. trained: bool, shape (tokens,), or None. sequences: [start, stop) of those that share the row.
    packed: it is a pack, whose sequences never have a loss on their first tokens.
    """

    ids: Sequence[int]
    texts: Sequence[str | None]
    special: Sequence[bool]
    trained: Mask | None
    sequences: Sequence[tuple[int, int]]
    packed: bool = False


def split_turns(row: RowTokens, norms: Expectations, in_content: Collection[int]) -> tuple[Turn, ...]:
    """Cut a row where messages are opened; where none is, where trained and untrained tokens meet.

    Args:
        row: what is cut; no turn goes on from one of its sequences to the next.
        norms: know what opens messages, and whose.
        in_content: positions of special tokens that the template did not write: they open nothing.
    """
    turns = []
    for number, (start, stop) in enumerate(row.sequences):
        if start == stop:
            continue
        openings = _openings(row, start, stop, norms, frozenset(in_content)) or list(_runs(row, start, stop))
        if not openings or openings[0][0] > start:
            if openings and _is_blank(row, start, openings[0][0]):  # a BOS, or padding
                openings[0] = (start, openings[0][1])
            else:
                openings.insert(0, (start, None))
        ends = [*(place for place, _ in openings[1:]), stop]
        for (place, role), end in zip(openings, ends, strict=True):
            trained = None if row.trained is None else int(np.count_nonzero(row.trained[place:end]))
            turns.append(Turn(place, end, role, number, trained))
    return tuple(turns)


def _openings(row: RowTokens, start: int, stop: int, norms: Expectations, in_content: frozenset[int]) -> list[_Opening]:
    """Where messages are opened between two places. Words alone open one only where no special tokens do: a template
    may write them within a message too.
    """
    if norms.origin.kind == TEXT:  # its prompts open responses; what stands before them is no message
        return []
    prompts = [(prompt, _ANSWERS) for prompt in norms.prompts]
    headers = list(zip(norms.headers, norms.roles, strict=True))
    special = frozenset(norms.special)
    marked = [*prompts, *((header, role) for header, role in headers if special.intersection(header))]
    found = list(_found(row, start, stop, marked, norms, in_content))
    if any(role != _ANSWERS for _, role in found):
        return found
    return list(_found(row, start, stop, [*prompts, *headers], norms, in_content))


def _found(
    row: RowTokens, start: int, stop: int, named: Sequence[_Named], norms: Expectations, in_content: frozenset[int]
) -> Iterator[_Opening]:
    known: dict[int, list[_Named]] = {}
    for opening in sorted(named, key=lambda each: -len(each[0])):
        known.setdefault(opening[0][0], []).append(opening)
    first = frozenset(norms.openers) & known.keys()
    place = start
    while place < stop:
        value = row.ids[place]
        if value in known and place not in in_content:
            whole = next((opening for opening in known[value] if _stands(row.ids, place, stop, opening[0])), None)
            if whole is not None:
                yield place, whole[1]
                place += len(whole[0])
                continue
            if value in first:
                yield place, _name(row, place + 1, stop)
        place += 1


def _stands(ids: Sequence[int], place: int, stop: int, sequence: tuple[int, ...]) -> bool:
    return place + len(sequence) <= stop and tuple(ids[place : place + len(sequence)]) == sequence


def _name(row: RowTokens, start: int, stop: int) -> str | None:
    """The word behind a token that opens a message, where there is one, alone on its line."""
    text = ""
    for place in range(start, min(stop, start + _LONGEST_NAME)):
        piece = row.texts[place] or ""
        if row.special[place] or "\n" in text:
            break
        text += piece
    found = _NAME.fullmatch(text.split("\n")[0])
    return found[1] if found is not None else None


def _runs(row: RowTokens, start: int, stop: int) -> Iterator[_Opening]:
    # That the first token of a sequence in a pack carries no loss says nothing about what it is.
    first = start + row.packed
    if row.trained is None or stop - first < 2:
        return
    for edge in np.flatnonzero(row.trained[first + 1 : stop] != row.trained[first : stop - 1]).tolist():
        yield first + edge + 1, None


def _is_blank(row: RowTokens, start: int, stop: int) -> bool:
    return all(row.special[place] or not (row.texts[place] or "").strip() for place in range(start, stop))
