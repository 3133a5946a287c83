"""What a rendering wrote, and which of the messages it wrote where."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

GENERATION = -1
"""Stands for the loop in marks of `{% generation %}` blocks."""
NO_MESSAGE = -1
"""Stands for the message in marks that only end what came before."""

Mark = tuple[int, int, int]
"""The place where an iteration of a loop over messages starts, or where a loop or a block ends: how many pieces were
written before; the number of the loop, in the order of the template; and the index of the message."""


class WrittenBlock(NamedTuple):
    """The characters [start, end) of a text that an iteration of a loop wrote, or a `{% generation %}` block."""

    start: int
    end: int
    message: int
    """Index of the message; NO_MESSAGE for `{% generation %}`."""
    loop: int


class Recording(NamedTuple):
    """A rendered text, the pieces in which the template wrote it, and marks between the pieces."""

    text: str
    pieces: Sequence[str]
    marks: Sequence[Mark]
    """In the order in which they were made."""

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
