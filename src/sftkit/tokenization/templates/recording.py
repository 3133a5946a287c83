"""What a rendering wrote, and which of the messages it wrote where."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

GENERATION = -1
"""Stands for the loop in marks of `{% generation %}` blocks."""
NO_MESSAGE = -1
"""Stands for the message in marks that only end what came before."""

Mark = tuple[int, int, int]
"""The place where an iteration of a loop over messages starts, or where a loop or a block ends: how many pieces were
written before; the number of the loop, in the order of the template; and the index of the message."""


_EMPTY_REASONING = re.compile(r"\s*(?:<(think|reasoning|thought|seed:think)>\s*</\1>|\[THINK\]\s*\[/THINK\]|</think>)")


def without_empty_reasoning(turn: str) -> list[str]:
    """Return what follows the empty reasoning that a turn begins with, with and without white space before it.

    Returns:
        Nothing if the turn does not begin so.

    Example:
        >>> without_empty_reasoning("<think>\\n</think>\\nYes"), without_empty_reasoning("<think>hm</think>Yes")
        (['\\nYes', 'Yes'], [])
    """
    found = _EMPTY_REASONING.match(turn)
    if found is None:
        return []
    rest = turn[found.end() :]
    return [rest[space:] for space in range(len(rest) - len(rest.lstrip()) + 1)]


@dataclass(frozen=True)
class Variable:
    """A piece of text that differs between conversations of one shape."""

    name: str
    """Its variable in the code of the program."""
    message: int | None = None
    """Index of the message whose content it is, unchanged or with its ends stripped; None for other texts."""
    is_stripped: bool = False
    """Whether the ends of the content may have been stripped."""


Part = str | Variable
"""A piece of text: the same in all conversations of a shape, or not."""


@dataclass(frozen=True, eq=False)
class Program:
    """What a template does with conversations of one shape whose contents meet the same conditions (`tracing`)."""

    run: Callable[[Sequence[str]], list[str] | None]
    """Returns the pieces of the text for the contents of the messages; None if these do not meet the conditions."""
    parts: tuple[Part, ...]
    """What each piece is."""
    marks: tuple[Mark, ...]
    """Where the messages start, as in a `Recording`."""
    unwritten: tuple[int, ...] = ()
    """The messages whose contents no piece depends on."""
    steps: tuple[tuple[str | None, str], ...] = ()
    """The values that it computes, with their names, and the conditions that must hold (named None), as Python."""

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return sum(2 * len(part) if isinstance(part, str) else 0 for part in self.parts) + 500 * len(self.parts)


class WrittenBlock(NamedTuple):
    """The characters [start, end) of a text that an iteration of a loop wrote, or a `{% generation %}` block."""

    start: int
    end: int
    message: int
    """Index of the message; NO_MESSAGE for `{% generation %}`."""
    loop: int


@dataclass(slots=True)
class Recording:
    """A rendered text, the pieces in which the template wrote it, and marks between the pieces.

    Two are equal if their texts are: engines may write the same text in other pieces.
    """

    text: str
    pieces: Sequence[str] = field(compare=False)
    marks: Sequence[Mark] = field(compare=False)
    """In the order in which they were made."""
    program: Program | None = field(default=None, compare=False)
    """The program that made the recording, if one did."""

    @classmethod
    def of_text(cls, text: str) -> Recording:
        """Return a text of which nothing is recorded."""
        return cls(text, (text,), ())

    @property
    def blocks(self) -> list[WrittenBlock]:
        """The parts of the text that iterations over messages and `{% generation %}` blocks wrote, by their starts.

        Example:
            >>> pieces = ["<s>", "a", "b", "!"]
            >>> Recording("<s>ab!", pieces, [(1, 0, 0), (2, 0, 1), (3, 0, NO_MESSAGE)]).blocks
            [WrittenBlock(start=3, end=4, message=0, loop=0), WrittenBlock(start=4, end=5, message=1, loop=0)]
        """
        positions = list(accumulate(map(len, self.pieces), initial=0))
        begun: dict[int, tuple[int, int]] = {}
        blocks = []
        for pieces, loop, message in self.marks:
            start = begun.pop(loop, None)
            if start is not None:
                blocks.append(WrittenBlock(start[0], positions[pieces], start[1], loop))
            if message != NO_MESSAGE or (loop == GENERATION and start is None):
                begun[loop] = positions[pieces], message
        return sorted(blocks)
