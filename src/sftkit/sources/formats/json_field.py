"""Finding the array in a JSON file that is one object: it is the value of a field, after any other values."""

from __future__ import annotations

import json
import re

from sftkit.errors import SourceError
from sftkit.sources.formats.json_brackets import OPEN, OPEN_ARRAY, QUOTE, BracketScanner
from sftkit.sources.formats.json_buffer import BLANK, SEPARATORS, JsonBuffer

_COLON = ord(":")
_NAME = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_MAX_NAME = 1 << 20


def find_array_in_field(buffer: JsonBuffer, path: str, field: str) -> None:
    """Go to the array in a field of the object that starts here, without holding the values before it.

    Args:
        buffer: The stream, at its first byte that belongs to JSON.
        path: The path, for error messages.
        field: The key of the array.

    Raises:
        SourceError: There is no such object, field or array.

    Example:
        >>> import io
        >>> buffer = JsonBuffer(io.BytesIO(b'{"version": [1], "rows": [{}]}'))
        >>> find_array_in_field(buffer, "a.json", "rows")
        >>> buffer.data[buffer.start :]
        b'[{}]}'
    """
    if buffer.skip(BLANK) != OPEN:
        raise SourceError(f"{path}: must be a JSON object with the reader.json_field {field!r}")
    buffer.start += 1
    while buffer.skip(SEPARATORS) == QUOTE:
        name = _read_name(buffer)
        if buffer.skip(BLANK) != _COLON:
            break
        buffer.start += 1
        first = buffer.skip(BLANK)
        if name == field and first != OPEN_ARRAY:
            raise SourceError(f"{path}: the reader.json_field {field!r} must be a list of objects")
        if name == field:
            return
        _skip_value(buffer)
    raise SourceError(f"{path}: has no reader.json_field {field!r}; correct it")


def _read_name(buffer: JsonBuffer) -> str | None:
    """Read a string; None if it does not end or is not valid."""
    while (found := _NAME.match(buffer.data, buffer.start)) is None:
        if len(buffer.data) - buffer.start >= _MAX_NAME or not buffer.read_more():
            return None
    buffer.start = found.end()
    try:
        return str(json.loads(found[0]))
    except ValueError:
        return None


def _skip_value(buffer: JsonBuffer) -> None:
    brackets = BracketScanner(buffer.start)
    while (end := brackets.find_end(buffer.data)) is None and not brackets.is_unbalanced:
        buffer.start = start = brackets.position
        if not buffer.read_more():
            return
        brackets.position -= start
    buffer.start = len(buffer.data) if end is None else end
