"""The base class of source formats, and the grouping of rows into batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import numpy as np

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.sources.source_file import Range, ScanResult, SourceFile

BATCH_ROWS = 1024
BATCH_BYTES = 4 << 20
"""Maximum number of rows in a batch; a batch also ends with the row that takes it past `BATCH_BYTES` of source."""


class SourceFormat(ABC):
    """How files of one format are divided into ranges and read.

    A format in `sftkit.sources.formats` is found by its `registered_as`. A format of another package is registered as
    an entry point of the group `sftkit.formats` (see `sftkit.core.plugins`), and its name is that of the entry point.
    """

    registered_as: ClassVar[str] = ""
    """Name of a built-in format; empty for base classes and for formats of other packages."""
    extensions: ClassVar[tuple[str, ...]] = ()
    """File name extensions of the format, in lower case and with their dot."""

    def verifies_ranges(self, file: SourceFile) -> bool:
        """Whether every range has the sha256 of its bytes, which `read` compares with the bytes that it gets.

        The content of any other file is hashed before `scan`, and what `open_bytes` reads is compared with that.
        """
        return False

    @abstractmethod
    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Hash the file and divide it into ranges of about `unit_size` bytes of source.

        A file that can only be read from its beginning is one range: `Range(0, file.size, 1, file.size)`.

        Raises:
            SourceError: The file cannot be read or does not have this format.
        """

    @abstractmethod
    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Yield the rows of a range in order, in batches; unreadable rows go to the log (`RowLog.quarantine`).

        Raises:
            SourceError: The rest of the file cannot be read.
        """


def group_into_batches(
    rows: Iterable[tuple[int, Row, int]], position: Callable[[], int] | None = None
) -> Iterator[Batch]:
    """Group rows into batches of limited size.

    Args:
        rows: Row number, row, and its size in bytes of source.
        position: Returns how many bytes of the file have been read, for rows whose sizes are not those in the file.

    Example:
        >>> [batch.rows for batch in group_into_batches([(1, {"text": "a"}, 9), (2, {"text": "b"}, 9)])]
        [[{'text': 'a'}, {'text': 'b'}]]
    """
    pending: list[Row] = []
    numbers: list[int] = []
    size = before = 0

    def batch() -> Batch:
        nonlocal before
        start, before = before, before + size if position is None else position()
        return Batch(pending, np.array(numbers, np.int64), source_bytes=before - start)

    for number, row, length in rows:
        pending.append(row)
        numbers.append(number)
        size += length
        if len(pending) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch()
            pending, numbers, size = [], [], 0
    if pending:
        yield batch()
