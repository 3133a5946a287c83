"""Finds the assistant turns of conversations that a program renders: what is decided once holds for all of them.

A program says where each piece of the text comes from: a constant of the template, or the content of a message. If the
constant before a content starts with the generation prompt, and the constant after it is the usual tail with the stop
token, that is so in every conversation that the program renders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from operator import add, itemgetter
from typing import NamedTuple

from sftkit.core.message_fields import USUAL_ROLES
from sftkit.tokenization.masking.supervision import AssistantTurn
from sftkit.tokenization.masking.turns.turn_end import TurnEnd
from sftkit.tokenization.masking.turns.turn_start import TurnStart
from sftkit.tokenization.probing.message_spans import marks_of_one_loop
from sftkit.tokenization.templates.recording import Part, Program, Variable

_Picker = Callable[[Sequence[int]], Sequence[int]]
"""Takes the numbers at some indices."""


class PlannedTurn(NamedTuple):
    """Where the produced part of a turn is, among the pieces of a text."""

    message: int
    """Index of the message."""
    first_piece: int
    prompt_length: int
    """Characters of the first piece before the produced part."""
    content_piece: int
    stop: int
    """Characters from the end of the content to the end of the stop token."""


class TurnPlan:
    """Where the turns of all conversations of a program are.

    `find` runs for every conversation, so it consists of few calls, none of them written in Python.
    """

    def __init__(self, turns: Sequence[PlannedTurn], stripped: Sequence[PlannedTurn]) -> None:
        """Prepare to find turns.

        Args:
            turns: all turns.
            stripped: those whose content is written without white space at its ends. The plan holds for a conversation
                without any.
        """
        self._messages = [turn.message for turn in turns]
        self._starts = _picker([turn.first_piece for turn in turns])
        self._prompt_lengths = [turn.prompt_length for turn in turns]
        self._ends = _picker([turn.content_piece + 1 for turn in turns])
        self._stops = [turn.stop for turn in turns]
        self._stripped = (
            (_picker([turn.content_piece for turn in stripped]), _picker([turn.message for turn in stripped]))
            if stripped
            else None
        )

    def find(self, pieces: Sequence[str], contents: Sequence[str]) -> list[AssistantTurn] | None:
        """Return the turns of a text; None if one of the contents was stripped.

        Args:
            pieces: the pieces of the text.
            contents: the contents of all messages.
        """
        lengths = [*map(len, pieces)]
        if self._stripped is not None:
            of_pieces, of_contents = self._stripped
            if of_pieces(lengths) != of_contents([*map(len, contents)]):
                return None
        positions = [*accumulate(lengths, initial=0)]
        starts = map(add, self._starts(positions), self._prompt_lengths)
        ends = map(add, self._ends(positions), self._stops)
        return [*map(AssistantTurn, self._messages, starts, ends)]


def plan_turns(program: Program, roles: Sequence[object], turn_start: TurnStart, turn_end: TurnEnd) -> TurnPlan | None:
    """Return where the turns of all conversations of a program are; None if that depends on their contents.

    The result is that of `find_simple_turns`.

    Args:
        program: the program.
        roles: the roles of the messages, the same in all of the conversations.
        turn_start: must have a prompt that is the same for all conversations.
        turn_end: of the same template.
    """
    marks = marks_of_one_loop(program.marks, len(roles))
    if marks is None or not USUAL_ROLES.issuperset(roles) or "assistant" not in roles:
        return None
    messages = [program.parts[start:end] for start, end in pairwise(marks)]
    first = roles.index("assistant")
    if first and not any(map(_has_constant, messages[:first])):
        return None
    if not all(map(_has_constant, messages[first:])):
        return None
    found = [
        _planned(index, marks[index], parts, turn_start, turn_end)
        for index, parts in enumerate(messages)
        if roles[index] == "assistant"
    ]
    turns = [turn for turn in found if turn is not None]
    stripped = [turn for turn in turns if _is_stripped(program.parts[turn.content_piece])]
    return TurnPlan(turns, stripped) if len(turns) == len(found) else None


def _picker(indices: Sequence[int]) -> _Picker:
    if not indices:
        return lambda numbers: ()
    if len(indices) == 1:
        [only] = indices
        return lambda numbers: (numbers[only],)
    return itemgetter(*indices)


def _planned(
    index: int, first_piece: int, parts: Sequence[Part], turn_start: TurnStart, turn_end: TurnEnd
) -> PlannedTurn | None:
    """Return where a turn is; None if its pieces do not show that."""
    tail, stop = turn_end.simple
    place = max((place for place, part in enumerate(parts) if isinstance(part, Variable)), default=0)
    content = parts[place]
    opening = parts[0]
    if not isinstance(content, Variable) or content.message != index or not isinstance(opening, str):
        return None
    if not opening.startswith(turn_start.text) or "".join(map(str, parts[place + 1 :])) != tail:
        return None
    return PlannedTurn(index, first_piece, len(turn_start.text), first_piece + place, stop)


def _is_stripped(part: Part) -> bool:
    return isinstance(part, Variable) and part.is_stripped


def _has_constant(parts: Sequence[Part]) -> bool:
    return any(isinstance(part, str) and part for part in parts)
