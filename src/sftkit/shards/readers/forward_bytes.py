"""Byte ranges of files that may be compressed."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sftkit.errors import SourceError
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_unmapped_arrow_file

_CODECS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip", b"BZh": "bz2"}
"""The first bytes of compressed files. Brotli has none: its files are known by their name."""

_BROTLI = ".br"
_CHUNK = 1 << 20
_ALWAYS_ALLOWED = 64 << 20
_MOST_EXPANSION = 1000
"""Decompressed bytes for each compressed one: tokens never reach it, files made to fill the memory do."""


class ForwardBytes:
    """A file that is read in ranges, best in ascending order: where it is compressed, going back starts over."""

    def __init__(self, path: AnyPath) -> None:
        """Open a file. Raises `OSError` if that fails."""
        self._path = path
        with open_unmapped_arrow_file(path) as file:
            self.stored_size: int = file.size()
            """Bytes of the file, compressed."""
            start = file.read(4)
        codec = next((name for magic, name in _CODECS.items() if start.startswith(magic)), None)
        self._codec = "brotli" if codec is None and path.name.endswith(_BROTLI) else codec
        self._stream, self._position = self._open(), 0

    @property
    def is_compressed(self) -> bool:
        """Whether the file is compressed."""
        return self._codec is not None

    def read(self, begin: int, size: int) -> bytes:
        """Read `size` bytes from position `begin` on.

        Raises:
            OSError: the file ends before, or its compressed data is damaged.
            SourceError: it expands to more than a thousand times its size.
        """
        self.check_expansion(begin + size)
        if not self.is_compressed:
            self._stream.seek(begin)
            self._position = begin
        elif begin < self._position:
            self._stream.close()
            self._stream, self._position = self._open(), 0
        while self._position < begin:
            self._take(min(begin - self._position, _CHUNK))
        data = bytearray()
        while len(data) < size:
            data += self._take(min(size - len(data), _CHUNK))
        return bytes(data)

    def check_expansion(self, size: int) -> None:
        """Raise `SourceError` if a file that is compressed cannot reasonably have so many bytes."""
        if self.is_compressed and size > max(_ALWAYS_ALLOWED, _MOST_EXPANSION * self.stored_size):
            raise SourceError(
                f"{self._path}: {self.stored_size:,} bytes of {self._codec} data would expand to {size:,} bytes; this "
                "is no file of tokens"
            )

    def _take(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        if not data:
            raise OSError("it ends too early")
        self._position += len(data)
        return data

    def _open(self) -> Any:
        file = open_unmapped_arrow_file(self._path)
        return pa.CompressedInputStream(file, self._codec) if self._codec is not None else file

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
