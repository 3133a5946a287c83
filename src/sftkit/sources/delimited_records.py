"""The lines of a delimited file, watched: how long the record is that they belong to, and where a too long one ends."""

from __future__ import annotations

import re
from typing import TextIO

_PIECE = 1 << 20
_SHOWN = 2000


class TooLongError(Exception):
    """The record that is being read is longer than a row may be."""


class BoundedRecords:
    """Lines for `csv.reader`, an iterator. Whoever reads says after each record that it is taken.

    Raises:
        TooLongError: (while it is iterated) a record has more than `most` characters; `skipped` then goes past it.
    """

    def __init__(self, text: TextIO, delimiter: str, most: int) -> None:
        self._text, self._most = text, most
        self._lines: list[str] = []
        self._size = 0
        self._quoting = re.compile(f'["\r\n{re.escape(delimiter)}]')
        self.are_over = False

    def __iter__(self) -> BoundedRecords:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._most + 1)
        if not line:
            self.are_over = True
            raise StopIteration
        self._lines.append(line)
        self._size += len(line)
        if self._size > self._most:
            raise TooLongError
        return line

    def taken(self) -> int:
        """The record is complete: how many characters it had. Another begins."""
        size, self._size = self._size, 0
        self._lines.clear()
        return size

    def start(self) -> str:
        """How the record begins."""
        return "".join(self._lines)[:_SHOWN]

    def skipped(self) -> int:
        """Go to the end of a record that is too long, holding little of it; how many characters it had.

        Line ends inside of quotes do not end a record. A quote opens a field where it is its first character.
        """
        pieces, self._lines = self._lines, []
        is_quoted, is_first = False, True
        while True:
            for piece in pieces:
                is_quoted, is_first = self._after(piece, is_quoted, is_first)
            if pieces[-1].endswith(("\n", "\r")) and not is_quoted:
                break
            piece = self._text.readline(_PIECE)
            self._size += len(piece)
            if not piece:
                self.are_over = True
                break
            pieces = [piece]
        return self.taken()

    def _after(self, piece: str, is_quoted: bool, is_first: bool) -> tuple[bool, bool]:
        """Whether the text is inside of quotes after a piece, and at the first character of a field."""
        place = 0
        for found in self._quoting.finditer(piece):
            is_first = is_first and found.start() == place
            place = found.end()
            if found[0] == '"':
                # Two in a row stand for one inside of quotes: they close and open again.
                is_quoted, is_first = not is_quoted and is_first, is_quoted
            elif not is_quoted:
                is_first = True
        return is_quoted, is_first and place == len(piece)
