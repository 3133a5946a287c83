"""Where the prompts of turns end in the texts of a program: what is decided once holds for all its conversations.

The prompt of a turn, and the conversation up to the turn, are traced like a conversation. If their pieces are the first
pieces of the program, the text of each conversation begins with them. The conditions on which the traces depend are
tested for each conversation, as far as the program does not already imply them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from sftkit.tokenization.templates.recording import Part, Program, Variable, without_empty_reasoning
from sftkit.tokenization.tracing.program import content_name

_MOST_STEPS = 2000
_LONGEST_EXPRESSION = 20_000
Holds = Callable[[Sequence[str]], bool]


@dataclass(frozen=True)
class PromptPlan:
    """Where the prompts of the assistant turns of a program end."""

    ends: tuple[tuple[int, int], ...]
    """For each turn a piece of the text, and how many of its characters belong to the prompt."""
    holds: Holds | None
    """Whether the plan holds for the contents of a conversation; None if it holds for all of the program."""

    def find(self, pieces: Sequence[str], contents: Sequence[str]) -> list[int] | None:
        """Return where the prompts end, in characters of a text; None if the plan does not hold for it.

        Args:
            pieces: the pieces of the text.
            contents: the contents of all messages.
        """
        if self.holds is not None and not self.holds(contents):
            return None
        positions = [*accumulate(map(len, pieces), initial=0)]
        return [positions[piece] + characters for piece, characters in self.ends]


class TurnPrograms(NamedTuple):
    """Programs of the beginnings of a conversation at one of its turns."""

    message: int
    """Index of the message."""
    prompt: Program
    """Of the prompt before it."""
    alone: Program | None
    """Of the conversation up to it; None if that is the whole conversation."""


def plan_prompts(
    program: Program, turns: Sequence[TurnPrograms], count: int, functions: Mapping[str, Any]
) -> PromptPlan | None:
    """Return where prompts end in the texts of a program, if these have each turn as at inference; None if not.

    A turn may lack an empty block of reasoning that is written at the end of the conversation up to it.

    Args:
        program: the program.
        turns: programs of its assistant turns.
        count: number of messages.
        functions: functions that the steps call.
    """
    others = [each for turn in turns for each in (turn.prompt, turn.alone) if each is not None]
    if any(len(each.steps) > _MOST_STEPS for each in (program, *others)):
        return None
    try:
        own, given = _canonical(program)
        needed = [condition for each in others for condition in _canonical(each).conditions]
        ends: list[tuple[int, int]] = []
        for turn in turns:
            prompt = _canonical(turn.prompt).parts
            end = _end_of(own, prompt)
            if end is None:
                return None
            ends.append(end)
            if turn.alone is not None:
                alone = _canonical(turn.alone).parts
                if _end_of(own, alone) is None and not _lacks_only_empty_reasoning(own, end, alone, prompt, turn):
                    return None
    except _TooLongError:
        return None
    left = [each for each in dict.fromkeys(needed) if each not in {*given}]
    return PromptPlan(tuple(ends), _make_test(left, count, functions) if left else None)


class _Canonical(NamedTuple):
    """A program whose values are expressions of the contents, so that it can be compared with others."""

    parts: list[Part]
    """Pieces in which the name of each variable is its expression."""
    conditions: list[str]


@lru_cache(maxsize=64)  # conversations with the same roles begin alike
def _canonical(program: Program) -> _Canonical:
    values, conditions = _expressions(program)
    parts = [
        replace(part, name=values.get(part.name, part.name)) if isinstance(part, Variable) else part
        for part in program.parts
    ]
    return _Canonical(parts, conditions)


def _lacks_only_empty_reasoning(
    own: Sequence[Part], end: tuple[int, int], alone: Sequence[Part], prompt: Sequence[Part], turn: TurnPrograms
) -> bool:
    """Return whether the text from the end of a prompt is that of a turn alone, except for empty reasoning.

    The turn must consist of constants and its content; white space at the ends of the content may be stripped.
    """
    start = _end_of(alone, prompt)
    if start is None:
        return False
    rest, written = _from(alone, start), _from(own, end)
    if not rest or not isinstance(rest[0], str):
        return False
    for opening in without_empty_reasoning(rest[0]):
        changed = [each for each in (opening, *rest[1:]) if each]
        if any(isinstance(each, Variable) and each.message != turn.message for each in changed):
            continue
        here = [_content_of(each, turn.message) for each in written]
        if _end_of(here, [_content_of(each, turn.message) for each in changed]) is not None:
            return True
    return False


def _content_of(part: Part, message: int) -> Part:
    return Variable("content", message) if isinstance(part, Variable) and part.message == message else part


def _from(parts: Sequence[Part], place: tuple[int, int]) -> list[Part]:
    piece, used = place
    if piece >= len(parts):
        return []
    first = parts[piece]
    return [first[used:] if isinstance(first, str) else first, *parts[piece + 1 :]]


class _TooLongError(Exception):
    """An expression is too long."""


def _expressions(program: Program) -> tuple[dict[str, str], list[str]]:
    """Return each value of a program as an expression of the contents alone, and its conditions likewise."""
    values: dict[str, str] = {}
    conditions: list[str] = []
    for name, source in program.steps:
        expression = ast.unparse(_Inserted(values).visit(ast.parse(source, mode="eval")))
        if len(expression) > _LONGEST_EXPRESSION:
            raise _TooLongError
        if name is None:
            conditions.append(expression)
        else:
            values[name] = expression
    return values, conditions


class _Inserted(ast.NodeTransformer):
    """Puts the expressions of values in the place of their names."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name."""
        if node.id not in self._values:
            return node
        return ast.parse(self._values[node.id], mode="eval").body


def _end_of(parts: Sequence[Part], beginning: Sequence[Part]) -> tuple[int, int] | None:
    """Return the piece, and the characters of it, at which some pieces end that others begin with; None if not."""
    place = used = 0
    for part in beginning:
        if isinstance(part, Variable):
            while place < len(parts) and parts[place] == "":
                place += 1
            here = parts[place] if place < len(parts) and not used else None
            if not isinstance(here, Variable) or here.name != part.name:
                return None
            place += 1
            continue
        rest = part
        while rest:
            here = parts[place] if place < len(parts) else None
            if not isinstance(here, str):
                return None
            shared = min(len(rest), len(here) - used)
            if not here.startswith(rest[:shared], used):
                return None
            rest, used = rest[shared:], used + shared
            if used == len(here):
                place, used = place + 1, 0
    return place, used


def _make_test(conditions: Sequence[str], count: int, functions: Mapping[str, Any]) -> Holds:
    names = "".join(f"{content_name(message)}, " for message in range(count))
    tests = " and ".join(f"({each})" for each in conditions)
    code = f"def test(contents):\n    {names} = contents\n    return bool({tests})"
    namespace: dict[str, Any] = dict(functions)
    exec(code, namespace)
    test = namespace["test"]

    def holds(contents: Sequence[str]) -> bool:
        try:
            return bool(test(contents))
        except Exception:  # a condition may need one that does not hold
            return False

    return holds
