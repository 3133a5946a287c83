"""Decompressing source files, with a limit on their expansion: a few bytes may decompress to terabytes."""

from __future__ import annotations

import io
from typing import IO, Any

from sftkit.errors import SourceError
from sftkit.sources.source_file import SourceFile
from sftkit.sources.streams.compressed_streams import MAGIC, CompressedStreams, CorruptDataError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
"""File name extension -> compression."""

ALWAYS_ALLOWED_BYTES = 64 << 20
"""Size that every file may have when decompressed, whatever its compressed size."""

_CHUNK = 1 << 20


class DamagedDataError(SourceError):
    """Compressed data is truncated or corrupt. Everything before the damage has been read.

    A format that can use what it has read counts the rest of the file as one bad row.
    """

    def __init__(self, path: str, problem: str, reason: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.reason = reason
        """Why the rest of the file is missing, as the reason of a bad row."""


def open_decompressed(raw: IO[bytes], file: SourceFile) -> IO[bytes]:
    """Return a seekable stream of a file's decompressed bytes.

    Raises:
        DamagedDataError: (on reading) The data is truncated or corrupt. With `read1` and `readline`, not with `read`,
            all bytes and lines before the damage are returned first.
        SourceError: (on reading) The data does not have this compression, or expands to more than `max_expansion`
            allows.
    """
    return io.BufferedReader(_DecompressedStream(raw, file), _CHUNK)


class _DecompressedStream(io.RawIOBase):
    """Compares the bytes it returns with the compressed bytes it has read. Seeking backwards starts over."""

    def __init__(self, raw: IO[bytes], file: SourceFile) -> None:
        self._raw, self._file = raw, file
        self._streams = self._open_streams()
        self._position = 0

    def _open_streams(self, careful_from: int | None = None) -> CompressedStreams:
        assert self._file.compression is not None
        return CompressedStreams(self._raw, self._file.compression, careful_from)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether the compressed file is seekable."""
        return self._raw.seekable()

    def tell(self) -> int:
        """Return the number of decompressed bytes before the next read."""
        return self._position

    def stored_position(self) -> int:
        """Return the number of compressed bytes that were read."""
        return min(self._raw.tell(), self._file.size)

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with decompressed bytes and return how many; fewer before the end or damage, 0 at the end."""
        filled = 0
        while filled < len(buffer):
            try:
                data = self._read(len(buffer) - filled)
            except DamagedDataError:
                if filled:
                    break  # it is raised again by the next call
                raise
            if not data:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
            self._position += len(data)
            if self._position > ALWAYS_ALLOWED_BYTES:
                compressed = min(self._raw.tell(), self._file.size)
                check_expansion(self._file, str(self._file.compression), compressed, self._position)
        return filled

    def _read(self, size: int) -> bytes:
        try:
            return self._streams.read(size)
        except EOFError:
            problem = "the data ends before the end of the stream"
            reason = f"the {self._file.compression} data is truncated here, and the rest of the file is missing"
        except CorruptDataError as error:
            if self._streams.careful_from is None and self._raw.seekable():
                self._read_up_to_damage(self._streams.chunk_start)
                return self._read(size)
            problem = str(error)
            reason = f"the {self._file.compression} data is broken from here on ({error})"
        problem = f"broken {self._file.compression} data: {problem}"
        if not self._position and self._raw.seekable() and not self._has_magic():
            raise SourceError(f"{self._file.path}: {problem}; rename the file if it is not compressed")
        raise DamagedDataError(self._file.path, problem, reason)

    def _read_up_to_damage(self, damaged_chunk: int) -> None:
        """Start over, and read the chunk that is damaged byte by byte, so that what is before the damage is kept."""
        self._raw.seek(0)
        self._streams = self._open_streams(damaged_chunk)
        rest = self._position
        while rest:
            rest -= len(self._streams.read(min(rest, _CHUNK)))

    def _has_magic(self) -> bool:
        assert self._file.compression is not None
        magic = MAGIC[self._file.compression]
        place = self._raw.tell()
        self._raw.seek(0)
        start = self._raw.read(len(magic))
        self._raw.seek(place)
        return magic.startswith(start)

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
            self._streams, self._position = self._open_streams(), 0
        while self._position < offset and self._skip(offset - self._position):
            pass
        return self._position

    def _skip(self, limit: int) -> int:
        return self.readinto(bytearray(min(limit, _CHUNK)))


def check_expansion(file: SourceFile, kind: str, compressed: int, size: int) -> None:
    """Check how far data expands.

    Args:
        file: the file that it is in, with the limit.
        kind: how it is compressed, for the error message.
        compressed: bytes before decompression.
        size: bytes after it, or at least those.

    Raises:
        SourceError: it is more than `max_expansion` and `ALWAYS_ALLOWED_BYTES` allow.
    """
    compressed = max(1, compressed)
    limit = file.limits.expansion
    if size > ALWAYS_ALLOWED_BYTES and size > limit * compressed:
        raise SourceError(
            f"{file.path}: {compressed:,} bytes of {kind} data expand to at least {size:,} bytes, which exceeds "
            f"max_expansion={limit:g}; raise it if you trust this file"
        )
