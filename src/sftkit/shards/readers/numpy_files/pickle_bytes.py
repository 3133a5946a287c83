"""The bytes of a pickle, read in windows."""

from __future__ import annotations

import pickle
import re
import struct
from typing import IO, Any

_NUMBERS = re.compile(rb"(?:K.|M..|J....|G........|[\x88\x89])++", re.DOTALL)
"""Integers, floats and booleans, one after another."""

_NUMBER_BYTES = {b"K": 2, b"M": 3, b"J": 5, b"G": 9, b"\x88": 1, b"\x89": 1}
_WINDOW = 1 << 20


class PickleError(ValueError):
    """A file has operations that rows of numbers do not need, or is damaged."""


class PickleBytes:
    """The bytes of a pickle, from the position at which a stream is."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        """Begin at the current position of a stream, with `size` bytes left in it."""
        self._file, self._left = file, size
        self._data, self._place = b"", 0

    def take(self, size: int) -> bytes:
        """Return the next bytes. Raises `PickleError` if the file ends before, as all methods do."""
        if len(self._data) - self._place < size:
            self._fill(size)
        begin = self._place
        self._place += size
        return self._data[begin : self._place]

    def _fill(self, size: int) -> None:
        """Have at least `size` bytes after the current place."""
        kept = self._data[self._place :]
        wanted = max(size - len(kept), min(_WINDOW, self._left))
        if size - len(kept) > self._left:
            raise PickleError("it ends too early")
        data = self._file.read(wanted)
        if len(data) < size - len(kept):
            raise PickleError("it ends too early")
        self._left -= len(data)
        self._data, self._place = kept + data, 0

    def unpack(self, form: str) -> int:
        """Return the next number of a type of `struct`."""
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def line(self) -> str:
        """Return the text up to the next line end."""
        line = bytearray()
        while (byte := self.take(1)) != b"\n":
            line += byte
            if len(line) > 200:
                raise PickleError("a name is too long")
        return line.decode()

    def numbers(self, operation: bytes, *, single: bool) -> list[Any]:
        """Return the numbers from the last operation on, those of a part of the file or a single one."""
        self._place -= 1
        missing = _NUMBER_BYTES[operation] - (len(self._data) - self._place)
        if missing > 0:
            self._fill(_NUMBER_BYTES[operation])
        found = _NUMBERS.match(self._data, self._place)
        assert found is not None  # there are the bytes of at least one number
        text = found[0][: _NUMBER_BYTES[operation]] if single else found[0]
        self._place += len(text)
        # These bytes match the expression above: they are numbers, and nothing that could be run.
        values: list[Any] = pickle.loads(b"\x80\x02](" + text + b"e.")
        return values
