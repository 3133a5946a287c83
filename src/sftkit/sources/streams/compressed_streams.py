"""Decompressing files that consist of one or more compressed streams, such as gzip members or zstd frames.

Python's own classes (`gzip.GzipFile` and others) lose what they have decompressed before an error, and ignore some
errors, such as data of another kind after a stream.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import IO, Protocol

from sftkit.core.error_text import first_line

MAGIC = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ", "zstd": b"\x28\xb5\x2f\xfd"}
"""The first bytes of each kind of compressed data."""

_CHUNK = 4 << 10  # compressed bytes; zstd may expand them to 128 MiB at once
_GZIP_FORMAT = 31  # `wbits` of zlib for gzip data
_PADDED = ("gzip", "xz")  # zeros may follow a stream


class CorruptDataError(Exception):
    """Compressed data is corrupt. The message says how."""


class _Decompressor(Protocol):
    """Decompresses one stream."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class CompressedStreams:
    """Reads the decompressed bytes of consecutive streams.

    Args:
        raw: The compressed file, at its beginning.
        kind: gzip, zstd, bz2 or xz.
        careful_from: Offset in the compressed file from which it is read byte by byte, so that nothing before an error
            is lost.
    """

    def __init__(self, raw: IO[bytes], kind: str, careful_from: int | None = None) -> None:
        self.careful_from = careful_from
        self.chunk_start = 0
        """Offset of the compressed bytes that were read last."""
        self._raw, self._kind = raw, kind
        self._offset = 0
        self._stream: _Decompressor | None = None
        self._has_streams = False
        self._compressed = b""
        self._decompressed = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return up to `size` decompressed bytes; b"" at the end.

        Raises:
            EOFError: The last stream is incomplete.
            CorruptDataError: The data is corrupt.
        """
        while not self._decompressed:
            if self._stream is None and not self._begin_stream():
                return b""
            assert self._stream is not None
            if not self._compressed and self._stream.needs_input:
                self._compressed = self._read_compressed()
            is_end = not self._compressed and self._stream.needs_input
            self._decompressed = memoryview(self._decompress(self._stream, size))
            if self._stream.eof:
                self._compressed, self._stream = self._stream.unused_data, None
            elif is_end and not self._decompressed:
                raise EOFError
        data, self._decompressed = self._decompressed[:size], self._decompressed[size:]
        return bytes(data)

    def _begin_stream(self) -> bool:
        """Start to decompress the next stream; return False at the end of the file."""
        while True:
            self._compressed = self._compressed or self._read_compressed()
            if self._has_streams and self._kind in _PADDED:
                is_padding = bool(self._compressed) and not self._compressed.strip(b"\0")
                self._compressed = self._compressed.lstrip(b"\0")
                if is_padding:
                    continue
            if not self._compressed:
                return False
            self._stream, self._has_streams = _new_decompressor(self._kind), True
            return True

    def _read_compressed(self) -> bytes:
        size = _CHUNK
        if self.careful_from is not None:
            size = min(_CHUNK, max(1, self.careful_from - self._offset))
        self.chunk_start = self._offset
        data = self._raw.read(size)
        self._offset += len(data)
        return data

    def _decompress(self, stream: _Decompressor, size: int) -> bytes:
        data, self._compressed = self._compressed, b""
        try:
            return stream.decompress(data, size)
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:  # bz2 raises OSError
            detail = first_line(error)
        except Exception as error:
            if type(error).__name__ != "ZstdError":  # zstandard is only imported where it is needed
                raise
            detail = first_line(error)
        raise CorruptDataError(detail.partition("decompressing data: ")[2] or detail)


def _new_decompressor(kind: str) -> _Decompressor:
    if kind == "gzip":
        return _GzipDecompressor()
    if kind == "bz2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor() if kind == "xz" else _ZstdDecompressor()


class _GzipDecompressor:
    """Gives zlib's object the interface of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(_GZIP_FORMAT)

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def needs_input(self) -> bool:
        return not self._object.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._object.decompress(self._object.unconsumed_tail + data, max_length)


class _ZstdDecompressor:
    """Gives zstandard's object the interface of those of bz2 and lzma; it decompresses everything at once."""

    needs_input = True

    def __init__(self) -> None:
        import zstandard

        self._object = zstandard.ZstdDecompressor().decompressobj()

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._object.decompress(data)
