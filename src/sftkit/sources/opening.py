"""Opening local paths and fsspec URLs alike, decompressed where the name says so."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from sftkit.errors import SourceError
from sftkit.sources.model import SourceFile

_CHUNK = 4 << 20
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
    except (gzip.BadGzipFile, EOFError, lzma.LZMAError) as error:
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
        with Path(file.path).open("rb") as stream:
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
    import zstandard

    return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True), _CHUNK)


def sha256_of(file: SourceFile) -> str:
    """sha256 of a source's stored bytes.

    Raises:
        SourceError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open_raw(file) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()
