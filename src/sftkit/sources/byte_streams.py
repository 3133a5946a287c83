"""Opening local paths and fsspec URLs alike, decompressed where the name says so."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, cast

from sftkit.errors import SourceError
from sftkit.sources.decompression import open_decompressed
from sftkit.sources.source_file import SourceFile
from sftkit.storage.streams import open_binary

_CHUNK = 1 << 20


@contextmanager
def open_bytes(file: SourceFile) -> Iterator[IO[bytes]]:
    """A source as decompressed bytes.

    Raises:
        SourceError: it cannot be opened, its compressed data is broken, or becomes more than `max_expansion` allows
            (also while it is read).
    """
    try:
        with open_raw(file) as raw:
            yield raw if file.compression is None else open_decompressed(raw, file)
    except (gzip.BadGzipFile, zlib.error, EOFError, lzma.LZMAError) as error:
        raise SourceError(f"{file.path}: broken {file.compression} data: {error}") from None
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":  # zstandard is imported only where it is needed
            raise SourceError(f"{file.path}: broken zstd data: {error}") from None
        raise


@contextmanager
def open_raw(file: SourceFile) -> Iterator[IO[bytes]]:
    """A source as the bytes that are stored.

    Raises:
        SourceError: it cannot be opened.
    """
    try:
        stream = open_binary(file.location)  # only opening is guarded here
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
    with stream:
        yield stream


def bounded_line_reader(stream: IO[bytes], most: int) -> Callable[[], bytes]:
    """A function that gives the next line of a stream, or so many bytes of a longer one; b"" at the end."""
    if not isinstance(stream, io.BufferedIOBase):  # files of fsspec read lines whole
        stream = cast(IO[bytes], io.BufferedReader(_Raw(stream), _CHUNK))
    return partial(stream.readline, most)


class _Raw(io.RawIOBase):
    """A stream that has only `read`, as one that can be buffered."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one read goes; 0 at the end."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def source_sha256(file: SourceFile) -> str:
    """sha256 of a source's stored bytes.

    Raises:
        SourceError: it cannot be read.
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
    """The bytes of a stream, so many at a time. Each chunk is hashed while it is looked at and the next is read."""
    first = stream.read(size)
    chunk = stream.read(size) if first else b""
    if not chunk:  # a thread costs more than to hash a small file
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
