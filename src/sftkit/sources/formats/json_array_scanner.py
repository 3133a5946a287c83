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
    BracketScanner,
    find_json_error,
)
from sftkit.sources.formats.json_buffer import BLANK, SEPARATORS, JsonBuffer
from sftkit.sources.formats.json_field import find_array_in_field
from sftkit.sources.formats.jsonl import decode_object

_SPACE = b" \t\r\n"
_SHOWN_BYTES = 8000  # of an element that is too long

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
    array = _ArrayScanner(JsonBuffer(stream), path, limit)
    array.begin(field)
    while array.find_element():
        yield array.read_element()
    if field is None:
        array.end()


class _ArrayScanner:
    """Finds the elements of the array in a buffer, one after the other."""

    def __init__(self, buffer: JsonBuffer, path: str, limit: int | None) -> None:
        self._buffer = buffer
        self._path = path
        self._limit = limit
        self._number = 0
        self._can_split_by_lines = True

    def begin(self, field: str | None) -> None:
        """Skip the bracket that opens the array, which may be the value of a field of an object."""
        self._buffer.skip_byte_order_mark()
        if field is not None:
            find_array_in_field(self._buffer, self._path, field)
        elif self._buffer.skip(BLANK) != OPEN_ARRAY:
            raise SourceError(f"{self._path}: must be a JSON array of objects, or one object a line")
        self._buffer.start += 1
        self._buffer.indent = b""

    def find_element(self) -> bool:
        """Go to the next element; return whether there is one."""
        self._number += 1
        character = self._buffer.skip(SEPARATORS)
        if character is None:
            raise self._error("the array does not end")
        return character != CLOSE_ARRAY

    def end(self) -> None:
        """Check that nothing follows the array."""
        self._buffer.start += 1
        if self._buffer.skip(BLANK) is not None:
            raise SourceError(f"{self._path}: there is more after the end of the array; a file must hold only one")

    def read_element(self) -> Element:
        """Read the element that starts here and go to its end."""
        brackets = BracketScanner(self._buffer.start)
        chunks = 1
        while True:
            end = self._find_end_quickly()
            end = brackets.find_end(self._buffer.data) if end is None else end
            if self._is_too_long(len(self._buffer.data) if end is None else end):
                return self._skip_element(brackets)
            if end is not None and (row := decode_object(self._text_before(end))) is not None:
                self._check_lines(end)
                return self._take(end, row)
            line = self._find_next_line(len(self._buffer.data) if end is None else end)
            if line is not None:
                return self._take(line)
            if end is not None:
                if self._is_plausible(end):
                    return self._take(end)
                brackets.is_unbalanced = True
            start = self._buffer.start
            if not self._buffer.read_more(chunks):
                return self._take(self._find_last_end())
            brackets.position -= start
            chunks *= 2  # growing, so that scanning a long element again costs little

    def _find_end_quickly(self) -> int | None:
        """Return the end of the element according to msgspec's error message, checked; None for broken JSON."""
        try:
            _decode_first_value(memoryview(self._buffer.data)[self._buffer.start :])
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            found = _MORE_THAN_A_VALUE.search(str(error))
            end = self._buffer.start + int(found[1]) - 1 if found is not None else -1
            return end if end > self._buffer.start and self._buffer.data[end] in (COMMA, CLOSE_ARRAY) else None
        return None

    def _find_next_line(self, limit: int) -> int | None:
        """Return the start of the line before `limit` that ends an element that cannot be parsed; None if none does."""
        if self._buffer.indent is None or (line := self._find_line(self._buffer.start, limit)) is None:
            return None
        failed_at = find_json_error(self._text_before(limit))
        if failed_at is None:
            return None
        line = self._find_line(self._buffer.start + max(0, failed_at - len(self._buffer.indent) - 1), limit)
        if line is None or self._can_split_by_lines:
            return line
        brackets = BracketScanner(self._buffer.start)
        brackets.find_end(self._buffer.data[:line])
        return line if brackets.in_string else None

    def _is_plausible(self, end: int) -> bool:
        """Whether an element that cannot be parsed ends where its brackets close.

        If a quote is missing, text is mistaken for brackets, and something other than the next object follows.
        """
        data = self._text_before(end)
        if b'"' not in data or self._buffer.data[end] != COMMA or find_json_error(data) is None:
            return True
        while (found := SEPARATORS.match(self._buffer.data, end)) is not None and found.end() == len(self._buffer.data):
            if not self._buffer.append():
                return False
        return found is not None and self._buffer.data[found.end()] == OPEN

    def _find_last_end(self) -> int:
        """Return the end of an element whose brackets do not close before the end of the stream."""
        if self._buffer.indent is not None and self._can_split_by_lines:
            line = self._find_line(self._buffer.start, len(self._buffer.data))
            if line is not None:
                return line  # a bracket is missing, so the elements that follow look nested
        data = self._buffer.data[self._buffer.start :].rstrip(_SPACE)
        failed_at = find_json_error(data)
        if failed_at is not None and data.endswith(b"]"):
            last_line = data[data.rfind(b"\n") + 1 :].strip(_SPACE)
            is_lone_bracket = failed_at < len(data) and self._buffer.indent is not None and last_line == b"]"
            if failed_at == len(data) - 1 or is_lone_bracket:
                return self._buffer.start + len(data) - 1
        raise self._error(_describe_unfinished(data))

    def _skip_element(self, brackets: BracketScanner) -> Element:
        """Return the beginning of an element that is too long, and go to its end."""
        head = self._buffer.data[self._buffer.start : self._buffer.start + _SHOWN_BYTES]
        while True:
            ends = [brackets.find_end(self._buffer.data)]
            if self._buffer.indent is not None and self._can_split_by_lines:
                ends.append(self._find_line(self._buffer.start, len(self._buffer.data)))
            end = min((end for end in ends if end is not None), default=None)
            if end is not None:
                self._buffer.move_to(end)
                return Element(self._number, head, None, is_complete=False)
            overlap = len(self._buffer.data) - len(self._buffer.indent or b"") - 2
            scanned = len(self._buffer.data) if brackets.is_unbalanced else brackets.position
            self._buffer.start = max(self._buffer.start, min(overlap, scanned))
            start = self._buffer.start
            if not self._buffer.read_more():
                raise self._error("the array does not end")
            brackets.position -= start

    def _check_lines(self, end: int) -> None:
        """Stop splitting by lines if a complete element contains a line that looks like the start of another one."""
        if self._buffer.indent is not None and self._can_split_by_lines:
            self._can_split_by_lines = self._find_line(self._buffer.start, end) is None

    def _find_line(self, start: int, limit: int) -> int | None:
        """Return the first line end from `start` on after which a line starts like the line of this element."""
        found = self._buffer.data.find(b"\n" + (self._buffer.indent or b"") + b"{", start, limit)
        return None if found < 0 else found

    def _text_before(self, end: int) -> bytes:
        return self._buffer.data[self._buffer.start : end]

    def _take(self, end: int, row: Row | None = None) -> Element:
        data = self._text_before(end).rstrip(_SPACE if row is not None else _SPACE + b",")
        self._buffer.move_to(end)
        return Element(self._number, data, row)

    def _is_too_long(self, end: int) -> bool:
        return self._limit is not None and end - self._buffer.start > self._limit

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
