"""What discovery and the source formats exchange: source files, ranges of them, and limits on reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftkit.config.schema.data_config import ReaderConfig
from sftkit.redaction import redact_url
from sftkit.storage.paths import AnyPath, RemotePath, is_url


@dataclass(frozen=True)
class ReadLimits:
    """Limits that a source exceeds only by mistake or on purpose to do harm."""

    row_bytes: int = 256 << 20
    """Maximum size of a row in its source, decompressed (`max_row_bytes`)."""
    expansion: float = 1000
    """Maximum ratio of decompressed to compressed bytes (`max_expansion`)."""

    def too_long_reason(self, size: str) -> str:
        """Return the reason for quarantining a row of the given size ("300 bytes")."""
        return f"the row has {size}, more than max_row_bytes={self.row_bytes} allows; raise it if this is right"


@dataclass(frozen=True)
class ContentDigests:
    """The digests of a file, as a whole and of its blocks."""

    sha256: str
    """Of the whole file, in hexadecimal."""
    size: int
    """Bytes."""
    block: int
    """Bytes of a block; the last one may be smaller."""
    digests: bytes
    """The first 16 bytes of the sha256 of each block, one after the other."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a data set."""

    dataset: str
    """Name of the data set."""
    path: str
    """Local path or fsspec URL."""
    format: str
    """Name of the source format."""
    compression: str | None
    """gzip, zstd, bz2, xz or None."""
    size: int
    """Bytes as stored."""
    packed_size: int | None = field(default=None, compare=False)
    """Bytes that it takes in the archive that it is part of."""
    limits: ReadLimits = ReadLimits()
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """Options for reading it."""
    stamp: tuple[int, int | str] | None = None
    """Size, and modification time or version in an object store, when the file was scanned."""
    content: ContentDigests | None = field(default=None, compare=False, repr=False)
    """What it held when it was scanned. `open_bytes` and `open_raw` compare this with what they read."""
    options: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """fsspec options, for a URL."""

    @property
    def name(self) -> str:
        """The path without the credentials of a URL, for messages and for what is written."""
        return redact_url(self.path)

    @property
    def location(self) -> AnyPath:
        """The path, as the functions of `sftkit.storage` take it."""
        return RemotePath(self.path, self.options) if is_url(self.path) else Path(self.path)


@dataclass(frozen=True)
class Range:
    """A part of a file, which one work unit reads."""

    start: int
    """First byte, row group or record batch; the unit of measure depends on the format."""
    stop: int
    """End of the range in the same measure, exclusive."""
    first_number: int
    """Row number of the first row, counted from 1 over the whole file."""
    size: int
    """Bytes of source."""
    skip: int = 0
    """Number of rows to skip, for a part of one row group or record batch."""
    rows: int | None = None
    """Number of rows, for a part of one row group or record batch."""
    sha256: str | None = None
    """sha256 of the bytes, for a range of bytes."""
    last_number: int | None = None
    """Number of the last row to read, where a data set is limited to its first rows."""


@dataclass(frozen=True)
class ScanResult:
    """The sha256 of a file and the ranges that it is divided into, in order."""

    sha256: str
    ranges: tuple[Range, ...]
    format: str | None = None
    """The format of the content, if it is not the one that the name implies."""
