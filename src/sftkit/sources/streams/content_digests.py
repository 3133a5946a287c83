"""Verifying that what is read of a source is what was planned, while it is read.

A source may be edited between planning and reading, with its size and time kept, and even be changed back afterwards.
Rows must never be staged under the key of other bytes. So the digests of a plan are compared with the very bytes that
a reader gets: those of a range of a JSONL file at its end, those of all other files block by block, before a reader
sees them.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any, Protocol, cast

from sftkit.errors import SourceError
from sftkit.sources.source_file import ContentDigests

_CHUNK = 1 << 20
_MIN_BLOCK, _MAX_BLOCKS = 256 << 10, 16 << 10
_CACHED = 8 << 20  # bytes of blocks that are kept, because columns are read in turns
_DIGEST = 16  # bytes


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def changed_error(path: str) -> SourceError:
    """Return the error for a source that is not what it was when the run was planned."""
    return SourceError(f"{path}: changed while it was read; run the command again when nothing writes to it")


def digest_content(stream: IO[bytes], size: int) -> ContentDigests:
    """Hash a file in one pass.

    Args:
        stream: The file.
        size: Its expected size, which decides the size of blocks.
    """
    block = _MIN_BLOCK
    while size > block * _MAX_BLOCKS:
        block *= 2
    both = _ContentHash(block)
    for _ in hashed_chunks(stream, both, max(block, _CHUNK)):
        pass
    return both.finish()


def hashed_chunks(stream: IO[bytes], digest: _Hash, size: int) -> Iterator[bytes]:
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


def verified_stream(stream: IO[bytes], path: str, content: ContentDigests) -> IO[bytes]:
    """Return a stream of the same bytes, which raises `SourceError` instead of returning any that were not planned.

    Args:
        stream: The file.
        path: Its name, for the error.
        content: What it held when the run was planned.
    """
    return cast(IO[bytes], io.BufferedReader(_VerifiedStream(stream, path, content), _MIN_BLOCK))


@contextmanager
def verified_range(stream: IO[bytes], path: str, length: int, sha256: str | None) -> Iterator[IO[bytes]]:
    """Yield a stream of the next bytes of a file, and check them at the end of the `with` block.

    Args:
        stream: The file, at the start of the range.
        path: Its name, for the error.
        length: Bytes of the range.
        sha256: What they had when the run was planned; None if that is not known.

    Raises:
        SourceError: The bytes are others.
    """
    hashed = _HashedRange(stream, length)
    with io.BufferedReader(hashed, max(1, min(_CHUNK, length))) as buffered:
        yield cast(IO[bytes], buffered)
        while buffered.read(_CHUNK):  # what the reader did not need
            pass
    if sha256 is not None and hashed.digest.hexdigest() != sha256:
        raise changed_error(path)


class _ContentHash:
    """Hashes a whole file and its blocks at once."""

    def __init__(self, block: int) -> None:
        self._block, self._size = block, 0
        self._whole, self._current = hashlib.sha256(), hashlib.sha256()
        self._digests: list[bytes] = []

    def update(self, data: bytes, /) -> None:
        """Add the next bytes of the file."""
        self._whole.update(data)
        rest = memoryview(data)
        while rest:
            piece = rest[: self._block - self._size % self._block]
            self._current.update(piece)
            self._size += len(piece)
            rest = rest[len(piece) :]
            if self._size % self._block == 0:
                self._end_block()

    def finish(self) -> ContentDigests:
        """Return the digests."""
        if self._size % self._block:
            self._end_block()
        return ContentDigests(self._whole.hexdigest(), self._size, self._block, b"".join(self._digests))

    def _end_block(self) -> None:
        self._digests.append(self._current.digest()[:_DIGEST])
        self._current = hashlib.sha256()


class _HashedRange(io.RawIOBase):
    """The next `length` bytes of a stream; they are hashed when they are read."""

    def __init__(self, stream: IO[bytes], length: int) -> None:
        self._stream, self._left = stream, length
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into the buffer and return the number of bytes; 0 at the end of the range."""
        data = self._stream.read(min(len(buffer), self._left))
        self.digest.update(data)
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


class _VerifiedStream(io.RawIOBase):
    """Reads whole blocks, and compares each with its digest before any of its bytes are returned."""

    def __init__(self, stream: IO[bytes], path: str, content: ContentDigests) -> None:
        self._stream, self._path, self._content = stream, path, content
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether the file is seekable."""
        return self._stream.seekable()

    def tell(self) -> int:
        """Return the position of the next read, in bytes."""
        return self._position

    stored_position = tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; nothing is read."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._content.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into the buffer and return the number of bytes; 0 at the end of the file as it was planned."""
        wanted = min(len(buffer), self._content.size - self._position)
        if wanted <= 0:
            return 0
        first, offset = divmod(self._position, self._content.block)
        data = self._blocks.get(first)
        if data is None:
            data = self._read_blocks(first, (self._position + wanted - 1) // self._content.block + 1)
        else:
            self._blocks.move_to_end(first)
        piece = memoryview(data)[offset : offset + wanted]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _read_blocks(self, first: int, stop: int) -> bytes:
        """Read consecutive blocks in one request, and keep the last of them.

        Raises:
            SourceError: One of them is not what it was.
        """
        block, digests = self._content.block, self._content.digests
        start = first * block
        data = self._read_at(start, min(stop * block, self._content.size) - start)
        view = memoryview(data)
        for index in range(first, stop):
            piece = view[(index - first) * block : (index - first + 1) * block]
            if hashlib.sha256(piece).digest()[:_DIGEST] != digests[index * _DIGEST : (index + 1) * _DIGEST]:
                raise changed_error(self._path)
            self._blocks[index] = data if stop == first + 1 else bytes(piece)
            if len(self._blocks) > max(2, _CACHED // block):
                self._blocks.popitem(last=False)
        return data

    def _read_at(self, start: int, length: int) -> bytes:
        if self._stream.seekable() and self._stream.tell() != start:
            self._stream.seek(start)
        pieces = [self._stream.read(length)]
        while pieces[-1] and sum(map(len, pieces)) < length:
            pieces.append(self._stream.read(length - sum(map(len, pieces))))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
