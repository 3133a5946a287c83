"""Random access to local and remote files, with retries when a connection breaks."""

from __future__ import annotations

import io
import os
from typing import IO, Any, cast

from sftkit.storage.paths import AnyPath, RemotePath, filesystem_for
from sftkit.storage.retry import with_retries

_BLOCK = 2 << 20  # bytes read ahead; object stores take some ten milliseconds per request, however small it is
_BUFFER = 256 << 10


def open_binary(place: AnyPath) -> IO[bytes]:
    """Open a file for reading.

    Raises:
        OSError: it cannot be opened. Reads raise the same error after the last retry.
    """
    if not isinstance(place, RemotePath):
        return place.open("rb")
    stream = with_retries(place, lambda: _opened(place))
    if getattr(stream, "size", None) is None:
        return cast(IO[bytes], stream)  # the server does not support ranges, so the stream cannot resume
    return cast(IO[bytes], io.BufferedReader(RetryingStream(place, stream), _BUFFER))


def open_arrow_file(place: AnyPath) -> Any:
    """Open a file for Arrow (`pa.NativeFile`). Local files are memory-mapped.

    Raises:
        OSError: it cannot be opened.
    """
    import pyarrow as pa

    if isinstance(place, RemotePath):
        return pa.PythonFile(open_binary(place), "r")
    return pa.memory_map(os.fsencode(place))  # as bytes: a name may not be valid UTF-8


def open_unmapped_arrow_file(place: AnyPath) -> Any:
    """Open a file for Arrow without a memory map, whose pages would count as memory of this process.

    Raises:
        OSError: it cannot be opened.
    """
    import pyarrow as pa

    return open_arrow_file(place) if isinstance(place, RemotePath) else pa.OSFile(os.fsencode(place))


def _opened(place: RemotePath) -> Any:
    system, path = filesystem_for(place)
    return system.open(path, "rb", block_size=_BLOCK)


class RetryingStream(io.RawIOBase):
    """A remote file that is reopened at its current position if a read fails."""

    def __init__(self, place: RemotePath, stream: Any) -> None:
        """Wrap a stream of fsspec that knows the size of the file."""
        self._place = place
        self._stream: Any = stream
        self._size = int(stream.size)
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """The position of the next read, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; nothing is fetched."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into the buffer. Return the number of bytes, 0 at the end."""
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        data = with_retries(self._place, lambda: self._read(wanted))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self._disconnect()
        super().close()

    def _read(self, wanted: int) -> bytes:
        try:
            if self._stream is None:
                self._stream = _opened(self._place)
            self._stream.seek(self._position)
            data: bytes = self._stream.read(wanted)
        except Exception:  # whatever the file system raises, the connection is in an unknown state
            self._disconnect()
            raise
        if not data:
            self._disconnect()
            raise OSError("it ends too early")
        return data

    def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
