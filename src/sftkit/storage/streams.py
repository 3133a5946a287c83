"""Reading files from anywhere in them, through a connection that may break."""

from __future__ import annotations

import io
import os
from typing import IO, Any, cast

from sftkit.storage.paths import AnyPath, RemotePath, filesystem_for
from sftkit.storage.retry import with_retries

_BLOCK = 2 << 20  # bytes read ahead; object stores answer in some ten milliseconds, however little is asked for
_BUFFER = 256 << 10


def open_binary(place: AnyPath) -> IO[bytes]:
    """A file from its beginning; it can be read from anywhere.

    Raises:
        OSError: it cannot be opened. Reading it raises the same, once it was tried often enough.
    """
    if not isinstance(place, RemotePath):
        return place.open("rb")
    stream = with_retries(place, lambda: _opened(place))
    if getattr(stream, "size", None) is None:
        return cast(IO[bytes], stream)  # of a server that gives a file as a whole: nothing to go back to
    return cast(IO[bytes], io.BufferedReader(RetryingStream(place, stream), _BUFFER))


def open_arrow_file(place: AnyPath) -> Any:
    """A file as Arrow reads it (`pa.NativeFile`): local ones are mapped into memory.

    Raises:
        OSError: it cannot be opened.
    """
    import pyarrow as pa

    if isinstance(place, RemotePath):
        return pa.PythonFile(open_binary(place), "r")
    return pa.memory_map(os.fsencode(place))  # as bytes, for a name need not be UTF-8


def _opened(place: RemotePath) -> Any:
    system, path = filesystem_for(place)
    return system.open(path, "rb", block_size=_BLOCK)


class RetryingStream(io.RawIOBase):
    """A remote file that is opened anew, and read on from where it was, when reading it fails.

    stream: of fsspec, which knows the size of the file.
    """

    def __init__(self, place: RemotePath, stream: Any) -> None:
        self._place = place
        self._stream: Any = stream
        self._size = int(stream.size)
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes before what is read next."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Read on from another place; nothing is fetched."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one read goes; 0 at the end."""
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        data = with_retries(self._place, lambda: self._read(wanted))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the connection."""
        if not self.closed:
            self._let_go()
        super().close()

    def _read(self, wanted: int) -> bytes:
        try:
            if self._stream is None:
                self._stream = _opened(self._place)
            self._stream.seek(self._position)
            data: bytes = self._stream.read(wanted)
        except Exception:
            self._let_go()
            raise
        if not data:
            self._let_go()
            raise OSError("it ends too early")
        return data

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
