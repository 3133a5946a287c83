"""Opening source files as byte streams: local paths and fsspec URLs, decompressed according to their extension."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, cast

from sftkit.errors import SourceError
from sftkit.sources.source_file import ContentDigests, SourceFile
from sftkit.sources.streams.content_digests import digest_content, verified_stream
from sftkit.sources.streams.decompression import open_decompressed
from sftkit.storage.streams import open_binary

_CHUNK = 1 << 20


@contextmanager
def open_bytes(file: SourceFile) -> Iterator[IO[bytes]]:
    """Open a source file for reading decompressed bytes.

    Raises:
        SourceError: The file cannot be opened. Also raised while it is read: the compressed data is damaged
            (`DamagedDataError`), or it expands to more than `max_expansion` allows.
    """
    try:
        with open_raw(file) as raw:
            yield raw if file.compression is None else open_decompressed(raw, file)
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None


@contextmanager
def open_raw(file: SourceFile) -> Iterator[IO[bytes]]:
    """Open a source file for reading its bytes as stored.

    Raises:
        SourceError: The file cannot be opened. Also raised while it is read: it is not what it was when it was scanned.
    """
    try:
        stream = open_binary(file.location)
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
    with stream:
        yield stream if file.content is None else verified_stream(stream, file.name, file.content)


def read_available(stream: IO[bytes], size: int) -> bytes:
    """Return up to `size` bytes, at least one before the end; all bytes before an error are returned first."""
    data: bytes = getattr(stream, "read1", stream.read)(size)
    return data


def bounded_line_reader(stream: IO[bytes], limit: int) -> Callable[[], bytes]:
    """Return a function that reads the next line, or `limit` bytes of a longer one; b"" at the end of the stream."""
    if not isinstance(stream, io.BufferedIOBase):  # fsspec's files read whole lines, however long
        stream = cast(IO[bytes], io.BufferedReader(_RawReader(stream), _CHUNK))
    return partial(stream.readline, limit)


class _RawReader(io.RawIOBase):
    """Adapts a stream that only has `read` to `io.BufferedReader`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes into the buffer and return how many; 0 at the end."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def stored_position(stream: IO[bytes]) -> Callable[[], int] | None:
    """Return a function that tells how many bytes of a source file, as stored, a stream has taken; None if none can.

    Args:
        stream: From `open_bytes` or `open_utf8`, for a file that is read from its beginning.
    """
    tell: Callable[[], int] | None = getattr(getattr(stream, "raw", None), "stored_position", None)
    return tell


def source_sha256(file: SourceFile) -> str:
    """Return the sha256 of a source file's bytes as stored.

    Raises:
        SourceError: The file cannot be read.
    """
    return content_digests(file).sha256


def content_digests(file: SourceFile) -> ContentDigests:
    """Return the digests of a source file's bytes as stored; it is read unless they are known.

    Raises:
        SourceError: The file cannot be read.
    """
    if file.content is not None:
        return file.content
    try:
        with open_raw(file) as stream:
            return digest_content(stream, file.size)
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
