"""Decompressing source files, with a limit on their expansion: a few bytes may decompress to terabytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from typing import IO, Any, Protocol, cast

from sftkit.errors import SourceError
from sftkit.sources.source_file import SourceFile

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
"""File name extension -> compression."""

ALWAYS_ALLOWED_BYTES = 64 << 20
"""Size that every file may have when decompressed, whatever its compressed size."""

_CHUNK = 1 << 20
_ZSTD_CHUNK = 4 << 10  # compressed bytes; zstd may expand them to 128 MiB at once


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def open_decompressed(raw: IO[bytes], file: SourceFile) -> IO[bytes]:
    """Return a seekable stream of a file's decompressed bytes.

    Raises:
        SourceError: (on reading) The data expands to more than `max_expansion` allows.
    """
    return io.BufferedReader(_DecompressedStream(raw, file), _CHUNK)


class _DecompressedStream(io.RawIOBase):
    """Compares the bytes it returns with the compressed bytes it has read. Seeking backwards starts over."""

    def __init__(self, raw: IO[bytes], file: SourceFile) -> None:
        self._raw, self._file = raw, file
        self._reader = self._new_reader()
        self._position = 0

    def _new_reader(self) -> _Reader:
        kind = self._file.compression
        if kind == "gzip":
            return cast(_Reader, gzip.GzipFile(fileobj=self._raw))
        if kind == "bz2":
            return cast(_Reader, bz2.BZ2File(self._raw))
        if kind == "xz":
            return cast(_Reader, lzma.LZMAFile(self._raw))
        return _ZstdReader(self._raw)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether the compressed file is seekable."""
        return self._raw.seekable()

    def tell(self) -> int:
        """Return the number of decompressed bytes before the next read."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read decompressed bytes into the buffer and return how many; 0 at the end."""
        data = self._reader.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        if self._position > ALWAYS_ALLOWED_BYTES:
            self._check_expansion()
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position by reading up to it, from the beginning if it is behind the current one."""
        if whence == io.SEEK_END:
            while self._skip(_CHUNK):
                pass
            offset += self._position
        elif whence == io.SEEK_CUR:
            offset += self._position
        if offset < self._position:
            self._raw.seek(0)
            self._reader, self._position = self._new_reader(), 0
        while self._position < offset and self._skip(offset - self._position):
            pass
        return self._position

    def _skip(self, limit: int) -> int:
        return self.readinto(bytearray(min(limit, _CHUNK)))

    def _check_expansion(self) -> None:
        compressed = max(1, min(self._raw.tell(), self._file.size))
        limit = self._file.limits.expansion
        if self._position > limit * compressed:
            raise SourceError(
                f"{self._file.path}: {compressed:,} bytes of {self._file.compression} data expand to at least "
                f"{self._position:,} bytes, which exceeds max_expansion={limit:g}; raise it if you trust this file"
            )


class _ZstdReader:
    """Decompresses consecutive zstd frames. Unlike zstandard's own reader, it detects a truncated file."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._compressed = b""
        self._decompressed = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return up to `size` decompressed bytes; b"" at the end.

        Raises:
            EOFError: The last frame is incomplete.
        """
        while not self._decompressed:
            self._compressed = self._compressed or self._raw.read(_ZSTD_CHUNK)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the data ends in the middle of a frame")
                return b""
            self._frame = self._frame or self._new_frame()
            self._decompressed = memoryview(self._frame.decompress(self._compressed))
            self._compressed = b""
            if self._frame.eof:
                self._frame, self._compressed = None, self._frame.unused_data
        data, self._decompressed = self._decompressed[:size], self._decompressed[size:]
        return bytes(data)
