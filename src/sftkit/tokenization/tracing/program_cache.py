"""Keeps programs for the shapes of conversations that occur often."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

from sftkit.tokenization.templates.recording import Program

_SIGHTS = 8
"""A shape is traced when it is seen this often: a trace takes as long as some fifty renderings."""
_SHAPES = 256
_PROGRAMS = 4
"""The most programs of one shape, for contents that meet other conditions."""
_COUNTED = 4096
_BYTES = 64 << 20
"""The most memory that programs take, about."""


class ProgramCache:
    """Programs by shape. Both are bounded; the shapes that were used least recently give way.

    What is in the cache never changes a result, only how fast it is computed.
    """

    def __init__(self) -> None:
        self._programs: OrderedDict[Hashable, list[Program]] = OrderedDict()
        self._sights: dict[Hashable, int] = {}
        self._bytes = 0

    def run(
        self, shape: Hashable, contents: Sequence[str], make: Callable[[], Program | None]
    ) -> tuple[Program, list[str]] | None:
        """Return a program for a conversation, and the pieces of its text.

        Args:
            shape: what the program depends on beside the contents.
            contents: the contents of the messages.
            make: makes a program for this conversation; None if that is not possible.

        Returns:
            None if there is no program for it.
        """
        programs = self._programs.get(shape)
        if programs is not None:
            for program in programs:
                pieces = program.run(contents)
                if pieces is not None:
                    self._programs.move_to_end(shape)
                    return program, pieces
            if len(programs) >= _PROGRAMS:
                return None
        if not self._is_due(shape):
            return None
        made = make()
        self._keep(shape, [_NEVER] * _PROGRAMS if made is None else [made])
        pieces = None if made is None else made.run(contents)
        return None if made is None or pieces is None else (made, pieces)

    def find(self, shape: Hashable, contents: Sequence[str]) -> Program | None:
        """Return a program for a conversation if there is one."""
        return next((each for each in self._programs.get(shape, ()) if each.run(contents) is not None), None)

    def _keep(self, shape: Hashable, programs: Sequence[Program]) -> None:
        """Add programs of a shape, and remove those of others where there are too many."""
        kept = self._programs.setdefault(shape, [])
        added = programs[: _PROGRAMS - len(kept)]
        kept += added
        self._bytes += sum(program.size for program in added)
        while len(self._programs) > _SHAPES or (self._bytes > _BYTES and len(self._programs) > 1):
            _, removed = self._programs.popitem(last=False)
            self._bytes -= sum(program.size for program in removed)

    def _is_due(self, shape: Hashable) -> bool:
        """Count the sights of a shape for which there is no program."""
        seen = self._sights.get(shape, 0) + 1
        if len(self._sights) >= _COUNTED and shape not in self._sights:
            self._sights.clear()
        self._sights[shape] = 0 if seen >= _SIGHTS else seen
        return seen >= _SIGHTS


_NEVER = Program(lambda contents: None, (), ())
"""Stands for the programs of a shape that cannot be traced."""
