"""Where a JSON value ends, by its brackets and quotes, and where it stops to be JSON. No value is made of it."""

from __future__ import annotations

import json
import re

QUOTE, COMMA, OPEN_ARRAY, CLOSE_ARRAY, OPEN, CLOSE = b'",[]{}'

_OPENED_BY = {CLOSE_ARRAY: OPEN_ARRAY, CLOSE: OPEN}
_BACKSLASH = 0x5C
_DEEPEST = 1 << 20

# Up to the next bracket (outside of brackets also: comma), strings passed over; a string that goes on is stopped at.
_INSIDE = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+', re.DOTALL)
_OUTSIDE = re.compile(rb'[^",\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^",\[\]{}]*+)*+', re.DOTALL)
_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class BracketScanner:
    """Follows the brackets of an element from `position` in a buffer."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.in_string = False
        self.is_lost = False
        self._open = bytearray()
        self._is_closed = False

    def end(self, buffer: bytes) -> int | None:
        """Where the comma or bracket after the element is; None when it is not in the buffer, or brackets do not match.

        Call it again with more in the buffer.
        """
        while not self.is_lost:
            pattern = _STRING if self.in_string else _INSIDE if self._open else _OUTSIDE
            found = pattern.match(buffer, self.position)
            assert found is not None  # each of them matches nothing, too
            self.position = found.end()
            if self.position == len(buffer) or buffer[self.position] == _BACKSLASH:  # nothing after it
                return None
            character = buffer[self.position]
            if character == QUOTE:
                self.in_string = not self.in_string
            elif character in (OPEN, OPEN_ARRAY):
                if self._is_closed:
                    return self.position  # a comma is missing
                self._open.append(character)
                self.is_lost = len(self._open) > _DEEPEST
            elif self._open:
                self.is_lost = self._open.pop() != _OPENED_BY[character]
                self._is_closed = not self._open
            elif character != CLOSE:
                return self.position
            self.position += 1
        return None


def find_json_error(data: bytes) -> int | None:
    """Where a text stops to be JSON: len(data) when it only lacks its end; None where it is JSON, or nothing tells."""
    try:
        json.loads(data.decode("latin-1"))  # a character a byte, and the same to JSON
    except json.JSONDecodeError as error:
        return len(data) if error.msg.startswith("Unterminated string") else error.pos
    except (RecursionError, ValueError):  # ValueError: a whole number of thousands of digits
        pass
    return None
