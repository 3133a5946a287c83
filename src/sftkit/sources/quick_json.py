"""Lines of JSON read at several times the speed of `json.loads`, or not at all: what is read is what it would read.

msgspec refuses much that `json.loads` takes (NaN, Infinity, half surrogate pairs, a byte order mark) and nothing is
known that both take and read differently, given a `float_hook`: floats are then made by `float` of their text, as
`json` makes them. Whole numbers beyond 64 bits are whole from msgspec 0.19 on. orjson turns them into floats.
"""

from __future__ import annotations

import msgspec

from sftkit.rows import Row

_MOST_NESTED = 800
"""Nesting that both parsers follow. Each gives up soon after, but not at the same depth."""

_decode = msgspec.json.Decoder(float_hook=float).decode


def quick_object(line: bytes) -> Row | None:
    """The JSON object that a line holds, or None where `json.loads` must say what the line is."""
    if len(line) > 2 * _MOST_NESTED and line.count(b"{") + line.count(b"[") > _MOST_NESTED:
        return None
    try:
        row = _decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: what Python makes of bytes and digits
        return None
    return row if type(row) is dict else None
