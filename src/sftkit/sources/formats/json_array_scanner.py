"""The elements of a JSON array as bytes, one after another; memory holds one of them, and no more than is allowed.

An element ends where its brackets do. That holds for broken JSON, too, unless brackets or quotes are what is broken.
Then lines tell: JSON has no line ends within strings, and whoever writes arrays in lines begins every element the same
way. So an element that cannot be parsed ends before the next line that begins as its own did, at or after the place
where parsing failed, unless such lines are found within whole elements of this file.
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
from sftkit.sources.formats.json_brackets import CLOSE_ARRAY, COMMA, OPEN, OPEN_ARRAY, BracketScanner, find_json_error
from sftkit.sources.formats.jsonl import decode_object

_CHUNK = 1 << 20
_SPACE = b" \t\r\n"
_SEPARATORS = re.compile(rb"[ \t\r\n,]*+")
_BLANK = re.compile(rb"[ \t\r\n]*+")
_BOM = b"\xef\xbb\xbf"
_HEAD = 8000  # bytes that are kept of an element that is too long
_LONGEST_INDENT = 200
_MOST_AT_ONCE = 32 << 20

_first_value = msgspec.json.Decoder(msgspec.Raw).decode
_MORE_THAN_A_VALUE = re.compile(r"trailing characters \(byte (\d+)\)")


@dataclass(frozen=True)
class Element:
    """One element: its place in the array from 1, its text, and the object that it is where it is one.

    is_whole: or it is too long, and `data` is its beginning.
    """

    number: int
    data: bytes
    row: Row | None
    is_whole: bool = True


def scan_elements(stream: IO[bytes], path: str, most: int | None = None) -> Iterator[Element]:
    """The elements of the array that a stream holds.

    Args:
        stream: of decompressed bytes.
        path: for messages.
        most: bytes of the longest element; longer ones are passed over without being held.

    Raises:
        SourceError: it is no array, or where a broken element ends cannot be found.
    """
    array = _Array(stream, path, most)
    array.begin()
    while array.find_element():
        yield array.element()
    array.end()


class _Array:
    """What was read of the stream and is not done with: `buffer` from `start` on."""

    def __init__(self, stream: IO[bytes], path: str, most: int | None) -> None:
        self._stream = stream
        self._path = path
        self._most = most
        self._buffer = b""
        self._start = 0
        self._number = 0
        self._line: bytes | None = None  # what stands before the element on its line; None: more than separators
        self._lines_tell = True

    def begin(self) -> None:
        """Pass over the bracket that begins the array."""
        while len(self._buffer) < len(_BOM) and self._grow(len(_BOM)):
            pass
        self._start = len(_BOM) if self._buffer.startswith(_BOM) else 0
        if self._skip(_BLANK) != OPEN_ARRAY:
            raise SourceError(f"{self._path}: must be a JSON array of objects, or one object a line")
        self._start += 1
        self._line = b""

    def find_element(self) -> bool:
        """Go to the next element, if there is one."""
        self._number += 1
        character = self._skip(_SEPARATORS)
        if character is None:
            raise self._error("the array does not end")
        return character != CLOSE_ARRAY

    def end(self) -> None:
        """See that nothing comes after the array."""
        self._start += 1
        if self._skip(_BLANK) is not None:
            raise SourceError(f"{self._path}: there is more after the end of the array; a file holds one")

    def element(self) -> Element:
        """The element that begins here; go to what is after it."""
        brackets = BracketScanner(self._start)
        wanted = _CHUNK
        while True:
            end = self._quick_end()
            end = brackets.end(self._buffer) if end is None else end
            if self._is_too_long(len(self._buffer) if end is None else end):
                return self._passed_over(brackets)
            if end is not None and (row := decode_object(self._held(end))) is not None:
                self._look_at_lines(end)
                return self._taken(end, row)
            cut = self._cut(len(self._buffer) if end is None else end)
            if cut is not None:
                return self._taken(cut)
            if end is not None:
                if self._is_plausible(end):
                    return self._taken(end)
                brackets.is_lost = True
            begun = self._start
            if not self._grow(wanted):
                return self._taken(self._last())
            brackets.position -= begun
            wanted = min(2 * wanted, _MOST_AT_ONCE)  # so that looking at what is held again costs little

    def _quick_end(self) -> int | None:
        """Where the element ends, if msgspec tells it, for JSON; that is only a message, so it is checked."""
        try:
            _first_value(memoryview(self._buffer)[self._start :])
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            told = _MORE_THAN_A_VALUE.search(str(error))
            end = self._start + int(told[1]) - 1 if told is not None else -1
            return end if end > self._start and self._buffer[end] in (COMMA, CLOSE_ARRAY) else None
        return None

    def _cut(self, limit: int) -> int | None:
        """Where, before `limit`, the line begins that ends an element that cannot be parsed; None where none does."""
        if self._line is None or (following := self._line_from(self._start, limit)) is None:
            return None
        failed = find_json_error(self._held(limit))
        if failed is None:
            return None
        following = self._line_from(max(self._start, self._start + failed - len(self._line) - 1), limit)
        if following is None or self._lines_tell:
            return following
        brackets = BracketScanner(self._start)
        brackets.end(self._buffer[:following])
        return following if brackets.in_string else None

    def _is_plausible(self, end: int) -> bool:
        """Whether an element that cannot be parsed ends where its brackets do: unless a quote is missing, and text is
        taken for brackets. Then something else follows than another object.
        """
        data = self._held(end)
        if b'"' not in data or self._buffer[end] != COMMA or find_json_error(data) is None:
            return True
        while (found := _SEPARATORS.match(self._buffer, end)) is not None and found.end() == len(self._buffer):
            data = self._stream.read(_CHUNK)
            if not data:
                return False
            self._buffer += data
        return found is not None and self._buffer[found.end()] == OPEN

    def _last(self) -> int:
        """Where the element ends, when the stream is at its end and its brackets do not."""
        if self._line is not None and self._lines_tell:
            following = self._line_from(self._start, len(self._buffer))
            if following is not None:
                return following  # a bracket is missing; those after it look as if they were within it
        data = self._buffer[self._start :].rstrip(_SPACE)
        failed = find_json_error(data)
        if failed is not None and data.endswith(b"]"):
            last_line = data[data.rfind(b"\n") + 1 :].strip(_SPACE)
            if failed == len(data) - 1 or (failed < len(data) and self._line is not None and last_line == b"]"):
                return self._start + len(data) - 1
        raise self._error(_what_is_wrong(data))

    def _passed_over(self, brackets: BracketScanner) -> Element:
        """The beginning of an element that is too long; go to what is after it."""
        head = self._buffer[self._start : self._start + _HEAD]
        while True:
            ends = [brackets.end(self._buffer)]
            if self._line is not None and self._lines_tell:
                ends.append(self._line_from(self._start, len(self._buffer)))
            end = min((end for end in ends if end is not None), default=None)
            if end is not None:
                self._start, self._line = end, None
                return Element(self._number, head, None, is_whole=False)
            overlap = len(self._buffer) - len(self._line or b"") - 2
            self._start = max(self._start, min(overlap, len(self._buffer) if brackets.is_lost else brackets.position))
            begun = self._start
            if not self._grow(_CHUNK):
                raise self._error("the array does not end")
            brackets.position -= begun

    def _look_at_lines(self, end: int) -> None:
        if self._line is not None and self._lines_tell:
            self._lines_tell = self._line_from(self._start, end) is None

    def _line_from(self, start: int, limit: int) -> int | None:
        """Where the first line end from `start` on is that is followed by what begins the line of this element."""
        found = self._buffer.find(b"\n" + (self._line or b"") + b"{", start, limit)
        return None if found < 0 else found

    def _held(self, end: int) -> bytes:
        return self._buffer[self._start : end]

    def _taken(self, end: int, row: Row | None = None) -> Element:
        data = self._held(end).rstrip(_SPACE if row is not None else _SPACE + b",")
        self._start, self._line = end, None
        return Element(self._number, data, row)

    def _is_too_long(self, end: int) -> bool:
        return self._most is not None and end - self._start > self._most

    def _skip(self, pattern: re.Pattern[bytes]) -> int | None:
        """The next byte that is not one of those skipped; None at the end of the stream."""
        while True:
            found = pattern.match(self._buffer, self._start)
            assert found is not None  # it matches nothing, too
            skipped = found[0]
            line_end = skipped.rfind(b"\n")
            if line_end >= 0:
                self._line = skipped[line_end + 1 :]
            elif self._line is not None:
                self._line += skipped
            if self._line is not None and len(self._line) > _LONGEST_INDENT:
                self._line = None
            self._start = found.end()
            if self._start < len(self._buffer):
                return self._buffer[self._start]
            if not self._grow(_CHUNK):
                return None

    def _grow(self, wanted: int) -> bool:
        """Read on, and let go of what is before `start`, which becomes 0; False at the end of the stream."""
        data = self._stream.read(wanted)
        if not data:
            return False
        self._buffer = self._buffer[self._start :] + data
        self._start = 0
        return True

    def _error(self, problem: str) -> SourceError:
        return SourceError(f"{self._path}:{self._number}: {problem}; mend the file there")


def _what_is_wrong(data: bytes) -> str:
    """Why an element cannot be read that does not end."""
    reason = "the array does not end"
    try:
        json.loads(data.decode())
    except RecursionError:
        reason = "JSON nested too deep"
    except UnicodeDecodeError:
        reason = "invalid UTF-8, and where this element ends cannot be found"
    except json.JSONDecodeError as error:
        reason = f"broken JSON: {error.msg}, and where this element ends cannot be found"
    except ValueError:  # a whole number of thousands of digits
        pass
    return reason
