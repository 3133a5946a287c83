"""Finding the end of a JSON value by its brackets and quotes, and the position of a JSON error, without decoding."""

from __future__ import annotations

import json
import re

QUOTE, COMMA, OPEN_ARRAY, CLOSE_ARRAY, OPEN, CLOSE = b'",[]{}'

_OPENED_BY = {CLOSE_ARRAY: OPEN_ARRAY, CLOSE: OPEN}
_BACKSLASH = 0x5C
_MAX_DEPTH = 1 << 20

# Everything up to the next bracket (or comma, outside of brackets), including whole strings. A string that the buffer
# cuts off is not included.
_INSIDE = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+', re.DOTALL)
_OUTSIDE = re.compile(rb'[^",\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^",\[\]{}]*+)*+', re.DOTALL)
_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class BracketScanner:
    """Follows the brackets of one array element through a growing buffer."""

    def __init__(self, position: int) -> None:
        """Start at the first byte of the element."""
        self.position = position
        self.in_string = False
        self.is_unbalanced = False
        """Whether the brackets do not match, so that they cannot tell where the element ends."""
        self._open = bytearray()
        self._is_closed = False

    def find_end(self, buffer: bytes) -> int | None:
        """Return the position of the comma or bracket after the element.

        Returns None if it is not in the buffer (call again with a longer buffer) or if the brackets do not match.

        Example:
            >>> BracketScanner(1).find_end(b'[{"a": [1, 2]}, {}]')
            14
        """
        while not self.is_unbalanced:
            pattern = _STRING if self.in_string else _INSIDE if self._open else _OUTSIDE
            found = pattern.match(buffer, self.position)
            assert found is not None  # every pattern matches an empty text
            self.position = found.end()
            if self.position == len(buffer) or buffer[self.position] == _BACKSLASH:  # a backslash at the end
                return None
            character = buffer[self.position]
            if character == QUOTE:
                self.in_string = not self.in_string
            elif character in (OPEN, OPEN_ARRAY):
                if self._is_closed:
                    return self.position  # the comma between two elements is missing
                self._open.append(character)
                self.is_unbalanced = len(self._open) > _MAX_DEPTH
            elif self._open:
                self.is_unbalanced = self._open.pop() != _OPENED_BY[character]
                self._is_closed = not self._open
            elif character != CLOSE:
                return self.position
            self.position += 1
        return None


def find_json_error(data: bytes) -> int | None:
    """Return the position at which a text stops being JSON.

    Returns len(data) if only its end is missing, and None if it is valid or the position is unknown.

    Example:
        >>> find_json_error(b'{"a": nil}'), find_json_error(b'{"a": "b'), find_json_error(b"{}")
        (6, 8, None)
    """
    try:
        json.loads(data.decode("latin-1"))  # one character per byte, so that positions are bytes
    except json.JSONDecodeError as error:
        return len(data) if error.msg.startswith("Unterminated string") else error.pos
    except (RecursionError, ValueError):  # ValueError: an integer of thousands of digits
        pass
    return None
