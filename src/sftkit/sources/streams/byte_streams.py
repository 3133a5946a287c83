"""Opening source files as byte streams: local paths and fsspec URLs, decompressed according to their extension."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, cast

from sftkit.errors import SourceError
from sftkit.sources.source_file import SourceFile
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
        SourceError: The file cannot be opened.
    """
    try:
        stream = open_binary(file.location)
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
    with stream:
        yield stream


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


def source_sha256(file: SourceFile) -> str:
    """Return the sha256 of a source file's bytes as stored.

    Raises:
        SourceError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open_raw(file) as stream:
            for _ in hashed_chunks(stream, digest, _CHUNK):
                pass
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()


def hashed_chunks(stream: IO[bytes], digest: hashlib._Hash, size: int) -> Iterator[bytes]:
    """Yield the bytes of a stream in chunks of `size`, hashing each while the caller uses it and the next is read."""
    first = stream.read(size)
    chunk = stream.read(size) if first else b""
    if not chunk:  # for a small file, starting a thread costs more than hashing
        digest.update(first)
        yield from [first] if first else []
        return
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(digest.update, first)
        yield first
        while chunk:
            hashing.result()
            hashing = pool.submit(digest.update, chunk)
            yield chunk
            chunk = stream.read(size)
        hashing.result()
