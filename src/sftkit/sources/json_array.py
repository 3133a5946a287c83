"""A JSON array of objects, decoded element by element so that memory does not grow with the file."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO

from sftkit.errors import SourceError
from sftkit.rows import HALF_PAIR, Batch, Row, RowLog
from sftkit.sources.batching import in_batches
from sftkit.sources.jsonl import holds_half_pairs
from sftkit.sources.model import Range, Scan, SourceFile
from sftkit.sources.opening import open_bytes, sha256_of

_CHUNK = 1 << 20
_SPACE = " \t\r\n"
_SEPARATORS = _SPACE + ","


class JsonArray:
    """One range, the whole file: where an element begins is known only after those before it."""

    def scan(self, file: SourceFile, unit_size: int) -> Scan:
        """Hash the file; it is one range."""
        return Scan(sha256_of(file), (Range(0, file.size, 1, file.size),))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """The elements in order; the row number is the element's place in the array, from 1."""
        with open_bytes(file) as stream:
            yield from in_batches(_objects(stream, file.path, log))


def _objects(stream: IO[bytes], path: str, log: RowLog) -> Iterator[tuple[int, Row, int]]:
    for number, (element, text) in enumerate(_elements(stream, path), 1):
        if not isinstance(element, dict):
            log.quarantine(number, f"a row must be a JSON object, not {type(element).__name__}", element)
        elif holds_half_pairs(element, text):
            log.quarantine(number, HALF_PAIR, text)
        else:
            yield number, element, len(text)


def _elements(stream: IO[bytes], path: str) -> Iterator[tuple[object, str]]:
    """Decode (element, its text) one after another."""
    text = _GrowingText(stream, path)
    decoder = json.JSONDecoder()
    if text.next_character(_SPACE) != "[":
        raise SourceError(f"{path}: must be a JSON array of objects, or one object a line")
    text.position += 1
    while text.next_character(_SEPARATORS) != "]":
        try:
            element, end = decoder.raw_decode(text.buffer, text.position)
        except json.JSONDecodeError as error:
            text.grow_or_fail(f"broken JSON: {error.msg}")
            continue
        except RecursionError:
            raise SourceError(f"{path}:{text.elements + 1}: JSON nested too deep") from None
        except ValueError as error:  # a whole number of thousands of digits
            raise SourceError(f"{path}:{text.elements + 1}: broken JSON: {error}") from None
        if end == len(text.buffer):
            text.grow_or_fail("the array does not end")  # a number at the buffer's end may go on
            continue
        yield element, text.buffer[text.position : end]
        text.elements += 1
        text.position = end
    text.position += 1
    if not text.is_over():
        raise SourceError(f"{path}: there is more after the end of the array; a file holds one")


class _GrowingText:
    """The text of a stream as far as it had to be read; what was decoded is let go."""

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self._stream = stream
        self._path = path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._wanted = _CHUNK
        self._at_element = -1
        self.buffer = ""
        self.position = 0
        self.elements = 0

    def next_character(self, skipped: str) -> str:
        """The next character that is not one of those skipped."""
        while True:
            while self.position < len(self.buffer) and self.buffer[self.position] in skipped:
                self.position += 1
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            self.grow_or_fail("the array does not end")

    def is_over(self) -> bool:
        """Whether nothing but white space is left."""
        while not self.buffer[self.position :].strip():
            if not self._grow():
                return True
        return False

    def grow_or_fail(self, problem: str) -> None:
        """Read on; at the end of the stream the problem is real.

        Raises:
            SourceError: nothing more comes, or it is not UTF-8.
        """
        if not self._grow():
            raise SourceError(f"{self._path}:{self.elements + 1}: {problem}")

    def _grow(self) -> bool:
        # Doubling while one element goes on keeps the cost of starting over on it linear.
        self._wanted = self._wanted * 2 if self._at_element == self.elements else _CHUNK
        self._at_element = self.elements
        data = self._stream.read(self._wanted)
        if not data:
            return False
        try:
            piece = self._decode(data)
        except UnicodeDecodeError:
            raise SourceError(f"{self._path}:{self.elements + 1}: invalid UTF-8 in or after this element") from None
        self.buffer = self.buffer[self.position :] + piece
        self.position = 0
        return True
