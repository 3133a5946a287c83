"""The part of a JSON stream that is in memory, and what precedes the current position on its line."""

from __future__ import annotations

import re
from typing import IO

from sftkit.sources.streams.byte_streams import read_available

SEPARATORS = re.compile(rb"[ \t\r\n,]*+")
BLANK = re.compile(rb"[ \t\r\n]*+")

_CHUNK = 1 << 20
_MAX_CHUNK = 32 << 20
_BOM = b"\xef\xbb\xbf"
_MAX_INDENT = 200


class JsonBuffer:
    """Reads a stream piece by piece. `data[start:]` are the bytes that are not processed yet."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.data = b""
        self.start = 0
        self.indent: bytes | None = None
        """The separators before `start` on its line; None if there is other text, or very many of them."""

    def skip_byte_order_mark(self) -> None:
        """Skip the byte order mark at the beginning of the stream, if it has one."""
        while len(self.data) < len(_BOM) and self._read(len(_BOM)):
            pass
        self.start = len(_BOM) if self.data.startswith(_BOM) else 0

    def skip(self, pattern: re.Pattern[bytes]) -> int | None:
        """Skip what a pattern matches: SEPARATORS or BLANK.

        Returns:
            The byte after it; None at the end of the stream.
        """
        while True:
            found = pattern.match(self.data, self.start)
            assert found is not None  # the patterns match an empty text
            skipped = found[0]
            line_end = skipped.rfind(b"\n")
            if line_end >= 0:
                self.indent = skipped[line_end + 1 :]
            elif self.indent is not None:
                self.indent += skipped
            if self.indent is not None and len(self.indent) > _MAX_INDENT:
                self.indent = None
            self.start = found.end()
            if self.start < len(self.data):
                return self.data[self.start]
            if not self.read_more():
                return None

    def move_to(self, end: int) -> None:
        """Go to the end of an element, which has text before it on its line."""
        self.start, self.indent = end, None

    def read_more(self, chunks: int = 1) -> bool:
        """Drop the bytes before `start`, which becomes 0, and append one chunk or several.

        Returns:
            False at the end of the stream, where nothing changes.
        """
        return self._read(min(chunks * _CHUNK, _MAX_CHUNK))

    def append(self) -> bool:
        """Append a chunk, without a change to the positions in the buffer; return False at the end of the stream."""
        data = read_available(self._stream, _CHUNK)
        self.data += data
        return bool(data)

    def _read(self, size: int) -> bool:
        data = read_available(self._stream, size)
        if not data:
            return False
        self.data = self.data[self.start :] + data
        self.start = 0
        return True
