"""Opening local paths and fsspec URLs alike, decompressed where the name says so."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from sftkit.errors import SourceError
from sftkit.sources.model import SourceFile

_CHUNK = 1 << 20
_ZSTD_CHUNK = 128 << 10  # compressed; what it holds is decompressed at once
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}


def is_url(path: str) -> bool:
    """Whether a path is an fsspec URL rather than a local path."""
    return "://" in path


@contextmanager
def open_bytes(file: SourceFile) -> Iterator[IO[bytes]]:
    """A source as decompressed bytes.

    Raises:
        SourceError: it cannot be opened, or its compressed data is broken (also while it is read).
    """
    try:
        with open_raw(file) as raw:
            yield _decompressed(raw, file.compression)
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
    if is_url(file.path):
        import fsspec

        opened = fsspec.open(file.path, "rb")
        with opened as stream:
            yield cast(IO[bytes], stream)
    else:
        try:
            stream = Path(file.path).open("rb")  # noqa: SIM115 - closed below; only opening is guarded here
        except OSError as error:
            raise SourceError(f"{file.path}: cannot be read: {error.strerror}") from None
        with stream:
            yield stream


def _decompressed(raw: IO[bytes], compression: str | None) -> IO[bytes]:
    if compression is None:
        return raw
    if compression == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if compression == "bz2":
        return cast(IO[bytes], bz2.BZ2File(raw))
    if compression == "xz":
        return cast(IO[bytes], lzma.LZMAFile(raw))
    return io.BufferedReader(_ZstdFrames(raw), _CHUNK)


class _ZstdFrames(io.RawIOBase):
    """Zstandard frames one after another, decompressed. zstandard's own reader takes a file cut short for whole."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one piece of decompressed data goes; 0 at the end.

        Raises:
            EOFError: the last frame does not end.
        """
        while not self._ready:
            self._compressed = self._compressed or self._raw.read(_ZSTD_CHUNK)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the data ends in the middle of a frame")
                return 0
            self._frame = self._frame or self._new_frame()
            self._ready = memoryview(self._frame.decompress(self._compressed))
            self._compressed = b""
            if self._frame.eof:
                self._frame, self._compressed = None, self._frame.unused_data
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def sha256_of(file: SourceFile) -> str:
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
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(digest.update, b"")
        while chunk := stream.read(size):
            hashing.result()
            hashing = pool.submit(digest.update, chunk)
            yield chunk
        hashing.result()
