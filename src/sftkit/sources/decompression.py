"""Compressed streams, read with an eye on what they become: a bomb of a few bytes fills a disk or a memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from typing import IO, Any, Protocol, cast

from sftkit.errors import SourceError
from sftkit.sources.source_file import SourceFile

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}

ALWAYS_ALLOWED_BYTES = 64 << 20
"""What any file may become, however small it is."""

_CHUNK = 1 << 20
_ZSTD_CHUNK = 4 << 10  # compressed; what it holds, up to 128 MiB of it, is decompressed at once


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def open_decompressed(raw: IO[bytes], file: SourceFile) -> IO[bytes]:
    """The content of a compressed file, as a stream that can be searched.

    Raises:
        SourceError: (while it is read) it becomes more than `max_expansion` allows.
    """
    return io.BufferedReader(_Decompressed(raw, file), _CHUNK)


class _Decompressed(io.RawIOBase):
    """What is read is counted against what was taken of the file. Going back begins anew."""

    def __init__(self, raw: IO[bytes], file: SourceFile) -> None:
        self._raw, self._file = raw, file
        self._reader = self._opened()
        self._position = 0

    def _opened(self) -> _Reader:
        kind = self._file.compression
        if kind == "gzip":
            return cast(_Reader, gzip.GzipFile(fileobj=self._raw))
        if kind == "bz2":
            return cast(_Reader, bz2.BZ2File(self._raw))
        if kind == "xz":
            return cast(_Reader, lzma.LZMAFile(self._raw))
        return _ZstdFrames(self._raw)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is, where the file is."""
        return self._raw.seekable()

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one piece of decompressed data goes; 0 at the end."""
        data = self._reader.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        if self._position > ALWAYS_ALLOWED_BYTES:
            self._check()
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read on, or from the beginning, to a place."""
        if whence == io.SEEK_END:
            while self._skipped(_CHUNK):
                pass
            offset += self._position
        elif whence == io.SEEK_CUR:
            offset += self._position
        if offset < self._position:
            self._raw.seek(0)
            self._reader, self._position = self._opened(), 0
        while self._position < offset and self._skipped(offset - self._position):
            pass
        return self._position

    def _skipped(self, most: int) -> int:
        return self.readinto(bytearray(min(most, _CHUNK)))

    def _check(self) -> None:
        taken = max(1, min(self._raw.tell(), self._file.size))
        most = self._file.limits.expansion
        if self._position > most * taken:
            raise SourceError(
                f"{self._file.path}: {taken:,} bytes of {self._file.compression} data become more than "
                f"{self._position:,} bytes, which is more than max_expansion={most:g} allows; raise it if this is right"
            )


class _ZstdFrames:
    """Zstandard frames one after another, decompressed. zstandard's own reader takes a file cut short for whole."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most so many bytes, fewer where one piece of decompressed data ends; none at the end.

        Raises:
            EOFError: the last frame does not end.
        """
        while not self._ready:
            self._compressed = self._compressed or self._raw.read(_ZSTD_CHUNK)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the data ends in the middle of a frame")
                return b""
            self._frame = self._frame or self._new_frame()
            self._ready = memoryview(self._frame.decompress(self._compressed))
            self._compressed = b""
            if self._frame.eof:
                self._frame, self._compressed = None, self._frame.unused_data
        ready, self._ready = self._ready[:size], self._ready[size:]
        return bytes(ready)
