"""Rows one by one -> batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.storage.paths import AnyPath, RemotePath, is_url


@dataclass(frozen=True)
class ReadLimits:
    """What is too much to be read, for it is a fault, or meant to do harm.

    row_bytes: of the longest row, as its source has it, decompressed (`max_row_bytes`). expansion: decompressed bytes
    for each compressed one (`max_expansion`).
    """

    row_bytes: int = 256 << 20
    expansion: float = 1000

    def too_long_reason(self, size: str) -> str:
        """Why a row of this size is put aside."""
        return f"the row has {size}, more than max_row_bytes={self.row_bytes} allows; raise it if this is right"


@dataclass(frozen=True)
class SourceFile:
    """One file of a data set.

    path: a local path or an fsspec URL. format: a key of the registry in `formats`. compression: gzip, zstd, bz2, xz
    or None. size: bytes on disk. limits: what may be read of it. stamp: its size and its time, or what an object store
    has for it, when it was scanned. options: of the file system behind a URL.
    """

    dataset: str
    path: str
    format: str
    compression: str | None
    size: int
    limits: ReadLimits = ReadLimits()
    stamp: tuple[int, int | str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def location(self) -> AnyPath:
        """Where it is."""
        return RemotePath(self.path, self.options) if is_url(self.path) else Path(self.path)


@dataclass(frozen=True)
class Range:
    """A part of a file: [start, stop) in the format's own measure (bytes, row groups, record batches).

    first_number: number of its first row, counted from 1. size: bytes of source it covers.
    skip, rows: where it is a part of one row group or record batch, the rows before it there, and how many are its own.
    sha256: of its bytes, where it is a range of them.
    """

    start: int
    stop: int
    first_number: int
    size: int
    skip: int = 0
    rows: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ScanResult:
    """What one look at a file gave: its content hash and the ranges it falls into, in order."""

    sha256: str
    ranges: tuple[Range, ...]


class SourceFormat(Protocol):
    """How files of one format are cut into ranges and read. Adding a format is adding one of these."""

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Hash the file and cut it into ranges of about `unit_size` bytes of source."""
        ...

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """The rows of a range in order, some at a time; unreadable rows go to the log."""
        ...


BATCH_ROWS = 1024
BATCH_BYTES = 4 << 20
"""A batch ends at so many rows, or at the row that takes it past so many bytes of source."""


def group_into_batches(rows: Iterable[tuple[int, Row, int]]) -> Iterator[Batch]:
    """Gather (row number, row, bytes of source) into batches of bounded rows and bytes."""
    pending: list[Row] = []
    numbers: list[int] = []
    size = 0
    for number, row, length in rows:
        pending.append(row)
        numbers.append(number)
        size += length
        if len(pending) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield Batch(pending, np.array(numbers, np.int64))
            pending, numbers, size = [], [], 0
    if pending:
        yield Batch(pending, np.array(numbers, np.int64))
