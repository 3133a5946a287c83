"""Reading text files as UTF-8, whatever their encoding, and telling from their beginning what they hold."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import msgspec

from sftkit.sources.reader_options import foreign_encoding
from sftkit.sources.source_file import SourceFile
from sftkit.sources.streams.byte_streams import open_bytes, read_available, stored_position
from sftkit.sources.streams.decompression import DamagedDataError

_CHUNK = 1 << 16
_HEAD = 1 << 20  # bytes that tell whether a file holds an array
_BOM = b"\xef\xbb\xbf"
_BOMS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks; those of UTF-32 first, because one of them begins with one of UTF-16."""
_ARRAY_OF_OBJECTS = re.compile(rb"\[\s*(?:[{\]]|$)")

_INVALID = "sftkit.invalid"
"""An error handler that replaces what cannot be decoded by a byte that is not UTF-8."""

codecs.register_error(_INVALID, lambda error: ("\udcff", cast(Any, error).end))
_decode_any = msgspec.json.Decoder(msgspec.Raw).decode


@contextmanager
def open_utf8(file: SourceFile) -> Iterator[IO[bytes]]:
    """Open a text file for reading decompressed UTF-8.

    Bytes that cannot be decoded become a byte that is not UTF-8, so that the row with it is found.

    Raises:
        SourceError: As `open_bytes`.
    """
    with open_bytes(file) as stream:
        encoding = foreign_encoding(file.reader) or encoding_of_mark(_peek(stream))
        yield stream if encoding is None else io.BufferedReader(_Utf8Stream(stream, encoding), _CHUNK)


def encoding_of_mark(head: bytes) -> str | None:
    """Return the encoding whose byte order mark a file begins with; None without one, and for UTF-8."""
    return next((encoding for mark, encoding in _BOMS.items() if head.startswith(mark)), None)


def read_head(file: SourceFile) -> tuple[bytes, bool]:
    """Return the beginning of a text file in UTF-8, and whether it is all that can be read of the file."""
    head = b""
    with open_utf8(file) as stream:
        try:
            while len(head) < _HEAD:
                data = read_available(stream, _HEAD)
                if not data:
                    return head, True
                head += data
        except DamagedDataError:
            return head, True
    return head, False


def holds_array(head: bytes, is_all: bool) -> bool:
    """Whether a file is one JSON array of objects, rather than one JSON value a line, some of which are arrays.

    Args:
        head: The beginning of the file in UTF-8.
        is_all: Whether that is the whole file.

    Example:
        >>> holds_array(b'[{"a": 1},\\n {"a": 2}]', True), holds_array(b'[{"a": 1}]\\n[{"a": 2}]', True)
        (True, False)
    """
    text = head.removeprefix(_BOM).lstrip()
    if not _ARRAY_OF_OBJECTS.match(text):
        return False
    line, line_end, rest = text.partition(b"\n")
    if not line_end and not is_all:
        return True
    rest = rest.lstrip()
    try:
        _decode_any(line)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return line.rstrip().endswith((b",", b"[", b"{")) or rest.startswith((b",", b"]"))
    return not rest


def _peek(stream: IO[bytes]) -> bytes:
    """Return the first bytes of a stream without reading them; b"" if they cannot be read."""
    size = max(map(len, _BOMS))
    try:
        if isinstance(stream, io.BufferedReader):
            return stream.peek(size)[:size]
        if not stream.seekable():
            return b""
        head = stream.read(size)
    except DamagedDataError:
        return b""
    stream.seek(0)
    return head


class _Utf8Stream(io.RawIOBase):
    """Converts a stream from another encoding to UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_INVALID)
        self._pending = memoryview(b"")
        self._is_exhausted = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def stored_position(self) -> int:
        """Return the number of bytes of the file that were read."""
        position = stored_position(self._stream) or self._stream.tell
        return position()

    def readinto(self, buffer: Any) -> int:
        """Read UTF-8 into the buffer and return the number of bytes; 0 at the end."""
        while not self._pending and not self._is_exhausted:
            data = read_available(self._stream, _CHUNK)
            self._is_exhausted = not data
            text = self._decoder.decode(data, final=self._is_exhausted)
            self._pending = memoryview(text.encode("utf-8", "surrogateescape"))
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size
