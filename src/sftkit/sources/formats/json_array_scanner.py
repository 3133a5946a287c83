"""Splitting a JSON array into its elements, as bytes; memory holds one element at a time, up to a limit.

An element ends where its brackets close. That also holds for most broken JSON, but not if brackets or quotes are
missing. Then line ends help: JSON strings contain none, and programs that write an array in lines start every element
in the same way. So an element that cannot be parsed ends before the next line that starts as its own line does, at or
after the position of the error, unless complete elements of this file contain such lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import msgspec

from sftkit.core.rows import Row
from sftkit.errors import SourceError
from sftkit.sources.formats.json_brackets import (
    CLOSE_ARRAY,
    COMMA,
    OPEN,
    OPEN_ARRAY,
    QUOTE,
    BracketScanner,
    find_json_error,
)
from sftkit.sources.formats.jsonl import decode_object
from sftkit.sources.streams.byte_streams import read_available

_CHUNK = 1 << 20
_MAX_CHUNK = 32 << 20
_SPACE = b" \t\r\n"
_SEPARATORS = re.compile(rb"[ \t\r\n,]*+")
_BLANK = re.compile(rb"[ \t\r\n]*+")
_BOM = b"\xef\xbb\xbf"
_SHOWN_BYTES = 8000  # of an element that is too long
_MAX_INDENT = 200
_COLON = ord(":")
_NAME = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_MAX_NAME = 1 << 20

_decode_first_value = msgspec.json.Decoder(msgspec.Raw).decode
_MORE_THAN_A_VALUE = re.compile(r"trailing characters \(byte (\d+)\)")


@dataclass(frozen=True)
class Element:
    """One element of an array."""

    number: int
    """Index in the array, counted from 1."""
    data: bytes
    """Its text; only the beginning if `is_complete` is false."""
    row: Row | None
    """The decoded object; None if it was not decoded."""
    is_complete: bool = True
    """False if the element is too long."""


def scan_elements(
    stream: IO[bytes], path: str, limit: int | None = None, field: str | None = None
) -> Iterator[Element]:
    """Yield the elements of the array in a stream.

    Args:
        stream: Decompressed bytes.
        path: The path, for error messages.
        limit: Maximum size of an element in bytes. A longer one is skipped without being held in memory.
        field: Key of the array, if the stream holds an object; what follows the array in it is not read.

    Raises:
        SourceError: The stream has no array, or the end of a broken element cannot be found.

    Example:
        >>> import io
        >>> [element.row for element in scan_elements(io.BytesIO(b'[{"a": 1}, {"a": 2}]'), "a.json")]
        [{'a': 1}, {'a': 2}]
    """
    array = _ArrayScanner(stream, path, limit)
    array.begin(field)
    while array.find_element():
        yield array.read_element()
    if field is None:
        array.end()


class _ArrayScanner:
    """Reads a stream piece by piece. `buffer[start:]` are the bytes that are not processed yet."""

    def __init__(self, stream: IO[bytes], path: str, limit: int | None) -> None:
        self._stream = stream
        self._path = path
        self._limit = limit
        self._buffer = b""
        self._start = 0
        self._number = 0
        self._indent: bytes | None = None  # separators before the element on its line; None: there is other text
        self._can_split_by_lines = True

    def begin(self, field: str | None) -> None:
        """Skip the bracket that opens the array, which may be the value of a field of an object."""
        while len(self._buffer) < len(_BOM) and self._read_more(len(_BOM)):
            pass
        self._start = len(_BOM) if self._buffer.startswith(_BOM) else 0
        if field is not None:
            self._find_field(field)
        elif self._skip(_BLANK) != OPEN_ARRAY:
            raise SourceError(f"{self._path}: must be a JSON array of objects, or one object a line")
        self._start += 1
        self._indent = b""

    def _find_field(self, field: str) -> None:
        """Go to the value of a field of the object that starts here, without holding the values before it."""
        if self._skip(_BLANK) != OPEN:
            raise SourceError(f"{self._path}: must be a JSON object with the reader.json_field {field!r}")
        self._start += 1
        while self._skip(_SEPARATORS) == QUOTE:
            name = self._read_name()
            if self._skip(_BLANK) != _COLON:
                break
            self._start += 1
            first = self._skip(_BLANK)
            if name == field and first != OPEN_ARRAY:
                raise SourceError(f"{self._path}: the reader.json_field {field!r} must be a list of objects")
            if name == field:
                return
            self._skip_value()
        raise SourceError(f"{self._path}: has no reader.json_field {field!r}; correct it")

    def _read_name(self) -> str | None:
        """Read a string; None if it does not end or is not valid."""
        while (found := _NAME.match(self._buffer, self._start)) is None:
            start, self._start = self._start, 0
            self._buffer = self._buffer[start:]
            data = read_available(self._stream, _CHUNK) if len(self._buffer) < _MAX_NAME else b""
            if not data:
                return None
            self._buffer += data
        self._start = found.end()
        try:
            return str(json.loads(found[0]))
        except ValueError:
            return None

    def _skip_value(self) -> None:
        brackets = BracketScanner(self._start)
        while (end := brackets.find_end(self._buffer)) is None and not brackets.is_unbalanced:
            self._start = start = brackets.position
            if not self._read_more(_CHUNK):
                return
            brackets.position -= start
        self._start = len(self._buffer) if end is None else end

    def find_element(self) -> bool:
        """Go to the next element; return whether there is one."""
        self._number += 1
        character = self._skip(_SEPARATORS)
        if character is None:
            raise self._error("the array does not end")
        return character != CLOSE_ARRAY

    def end(self) -> None:
        """Check that nothing follows the array."""
        self._start += 1
        if self._skip(_BLANK) is not None:
            raise SourceError(f"{self._path}: there is more after the end of the array; a file must hold only one")

    def read_element(self) -> Element:
        """Read the element that starts here and go to its end."""
        brackets = BracketScanner(self._start)
        chunk = _CHUNK
        while True:
            end = self._find_end_quickly()
            end = brackets.find_end(self._buffer) if end is None else end
            if self._is_too_long(len(self._buffer) if end is None else end):
                return self._skip_element(brackets)
            if end is not None and (row := decode_object(self._text_before(end))) is not None:
                self._check_lines(end)
                return self._take(end, row)
            line = self._find_next_line(len(self._buffer) if end is None else end)
            if line is not None:
                return self._take(line)
            if end is not None:
                if self._is_plausible(end):
                    return self._take(end)
                brackets.is_unbalanced = True
            start = self._start
            if not self._read_more(chunk):
                return self._take(self._find_last_end())
            brackets.position -= start
            chunk = min(2 * chunk, _MAX_CHUNK)  # growing, so that scanning a long element again costs little

    def _find_end_quickly(self) -> int | None:
        """Return the end of the element according to msgspec's error message, checked; None for broken JSON."""
        try:
            _decode_first_value(memoryview(self._buffer)[self._start :])
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            found = _MORE_THAN_A_VALUE.search(str(error))
            end = self._start + int(found[1]) - 1 if found is not None else -1
            return end if end > self._start and self._buffer[end] in (COMMA, CLOSE_ARRAY) else None
        return None

    def _find_next_line(self, limit: int) -> int | None:
        """Return the start of the line before `limit` that ends an element that cannot be parsed; None if none does."""
        if self._indent is None or (line := self._find_line(self._start, limit)) is None:
            return None
        failed_at = find_json_error(self._text_before(limit))
        if failed_at is None:
            return None
        line = self._find_line(max(self._start, self._start + failed_at - len(self._indent) - 1), limit)
        if line is None or self._can_split_by_lines:
            return line
        brackets = BracketScanner(self._start)
        brackets.find_end(self._buffer[:line])
        return line if brackets.in_string else None

    def _is_plausible(self, end: int) -> bool:
        """Whether an element that cannot be parsed ends where its brackets close.

        If a quote is missing, text is mistaken for brackets, and something other than the next object follows.
        """
        data = self._text_before(end)
        if b'"' not in data or self._buffer[end] != COMMA or find_json_error(data) is None:
            return True
        while (found := _SEPARATORS.match(self._buffer, end)) is not None and found.end() == len(self._buffer):
            data = read_available(self._stream, _CHUNK)
            if not data:
                return False
            self._buffer += data
        return found is not None and self._buffer[found.end()] == OPEN

    def _find_last_end(self) -> int:
        """Return the end of an element whose brackets do not close before the end of the stream."""
        if self._indent is not None and self._can_split_by_lines:
            line = self._find_line(self._start, len(self._buffer))
            if line is not None:
                return line  # a bracket is missing, so the elements that follow look nested
        data = self._buffer[self._start :].rstrip(_SPACE)
        failed_at = find_json_error(data)
        if failed_at is not None and data.endswith(b"]"):
            last_line = data[data.rfind(b"\n") + 1 :].strip(_SPACE)
            is_lone_bracket = failed_at < len(data) and self._indent is not None and last_line == b"]"
            if failed_at == len(data) - 1 or is_lone_bracket:
                return self._start + len(data) - 1
        raise self._error(_describe_unfinished(data))

    def _skip_element(self, brackets: BracketScanner) -> Element:
        """Return the beginning of an element that is too long, and go to its end."""
        head = self._buffer[self._start : self._start + _SHOWN_BYTES]
        while True:
            ends = [brackets.find_end(self._buffer)]
            if self._indent is not None and self._can_split_by_lines:
                ends.append(self._find_line(self._start, len(self._buffer)))
            end = min((end for end in ends if end is not None), default=None)
            if end is not None:
                self._start, self._indent = end, None
                return Element(self._number, head, None, is_complete=False)
            overlap = len(self._buffer) - len(self._indent or b"") - 2
            scanned = len(self._buffer) if brackets.is_unbalanced else brackets.position
            self._start = max(self._start, min(overlap, scanned))
            start = self._start
            if not self._read_more(_CHUNK):
                raise self._error("the array does not end")
            brackets.position -= start

    def _check_lines(self, end: int) -> None:
        """Stop splitting by lines if a complete element contains a line that looks like the start of another one."""
        if self._indent is not None and self._can_split_by_lines:
            self._can_split_by_lines = self._find_line(self._start, end) is None

    def _find_line(self, start: int, limit: int) -> int | None:
        """Return the first line end from `start` on after which a line starts like the line of this element."""
        found = self._buffer.find(b"\n" + (self._indent or b"") + b"{", start, limit)
        return None if found < 0 else found

    def _text_before(self, end: int) -> bytes:
        return self._buffer[self._start : end]

    def _take(self, end: int, row: Row | None = None) -> Element:
        data = self._text_before(end).rstrip(_SPACE if row is not None else _SPACE + b",")
        self._start, self._indent = end, None
        return Element(self._number, data, row)

    def _is_too_long(self, end: int) -> bool:
        return self._limit is not None and end - self._start > self._limit

    def _skip(self, pattern: re.Pattern[bytes]) -> int | None:
        """Skip what a pattern matches; return the byte after it, None at the end of the stream."""
        while True:
            found = pattern.match(self._buffer, self._start)
            assert found is not None  # the patterns match an empty text
            skipped = found[0]
            line_end = skipped.rfind(b"\n")
            if line_end >= 0:
                self._indent = skipped[line_end + 1 :]
            elif self._indent is not None:
                self._indent += skipped
            if self._indent is not None and len(self._indent) > _MAX_INDENT:
                self._indent = None
            self._start = found.end()
            if self._start < len(self._buffer):
                return self._buffer[self._start]
            if not self._read_more(_CHUNK):
                return None

    def _read_more(self, size: int) -> bool:
        """Drop the bytes before `start`, which becomes 0, and append bytes; return False at the end of the stream."""
        data = read_available(self._stream, size)
        if not data:
            return False
        self._buffer = self._buffer[self._start :] + data
        self._start = 0
        return True

    def _error(self, problem: str) -> SourceError:
        return SourceError(f"{self._path}:{self._number}: {problem}; fix the file there")


def _describe_unfinished(data: bytes) -> str:
    """Return why an element without an end cannot be read."""
    reason = "the array does not end"
    try:
        json.loads(data.decode())
    except RecursionError:
        reason = "JSON nested too deep"
    except UnicodeDecodeError:
        reason = "invalid UTF-8, and the end of this element cannot be found"
    except json.JSONDecodeError as error:
        reason = f"broken JSON: {error.msg}, and the end of this element cannot be found"
    except ValueError:  # an integer of thousands of digits
        pass
    return reason
