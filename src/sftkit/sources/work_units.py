"""Work units: dividing source files into ranges that are processed independently, and reading one of them.

Large files are divided into several units. Of many small files, some at a time make up one unit (`small_files.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from sftkit.core.accounting.file_log import FileLog
from sftkit.core.row_log import UNREADABLE, RowLog
from sftkit.core.rows import Batch, Row
from sftkit.errors import SourceError
from sftkit.sources.format_registry import FORMATS
from sftkit.sources.row_limit import rows_up_to
from sftkit.sources.source_file import Range, SourceFile
from sftkit.sources.source_format import group_into_batches
from sftkit.sources.streams.byte_streams import content_digests
from sftkit.sources.streams.content_digests import changed_error
from sftkit.storage.files import file_version

T = TypeVar("T")

TEXT_FORMATS = frozenset({"jsonl", "json_array", "csv", "tsv"})
"""Formats whose rows are Python objects when they are read, and take at least two bytes."""

_SCAN_THREADS = 4


@dataclass(frozen=True)
class FilePart:
    """A range of a source file."""

    file: SourceFile
    part: Range


@dataclass(frozen=True)
class WorkUnit:
    """A range of one source file, or several whole files. Its output depends only on their bytes and on the pipeline.

    The rows of a range have their numbers in the file. The rows of several files are numbered consecutively.
    """

    number: int
    """Index among all units of the plan, which is also the order of their rows."""
    parts: tuple[FilePart, ...]
    """Several files have the same data set, format, compression and options."""

    @property
    def file(self) -> SourceFile:
        """The file, or the first of several."""
        return self.parts[0].file

    @property
    def size(self) -> int:
        """Bytes of source."""
        return sum(each.part.size for each in self.parts)

    @property
    def first_number(self) -> int:
        """The number of the first row."""
        return self.parts[0].part.first_number

    def locate(self, number: int, rows_before: Sequence[int]) -> tuple[str, int]:
        """Return the name of the file that holds a row, and the row's number in that file.

        Args:
            number: the row's number in the unit.
            rows_before: `FileLog.rows_before` of each file of the unit; empty if the unit has one file.
        """
        if not rows_before:
            return self.file.name, number
        index = bisect_left(rows_before, number) - 1
        return self.parts[index].file.name, number - rows_before[index]

    def __str__(self) -> str:
        if len(self.parts) == 1:
            return f"{self.file.name} (rows from {self.first_number})"
        return f"{self.file.name} (and {len(self.parts) - 1} more files)"


@dataclass(frozen=True)
class ScannedFile:
    """A source file, its sha256 and its work units."""

    file: SourceFile
    sha256: str
    units: tuple[WorkUnit, ...]
    """Units of this file alone. A plan may group those of small files."""


ScanExecutor = Callable[[Callable[[SourceFile], T], Sequence[SourceFile]], Iterable[T]]
"""Applies a function to source files and returns the results in the same order."""


def scan_in_threads(scan: Callable[[SourceFile], T], files: Sequence[SourceFile]) -> Iterator[T]:
    """Scan files in threads of this process; hashing and disk access release the interpreter lock."""
    with ThreadPoolExecutor(_SCAN_THREADS) as pool:
        yield from pool.map(scan, files)


def scan_files(
    files: list[SourceFile], unit_size: int, scan_all: ScanExecutor[ScannedFile] = scan_in_threads
) -> list[ScannedFile]:
    """Hash files and divide them into work units of about `unit_size` bytes.

    Raises:
        SourceError: A file cannot be read or does not have its format.
    """
    return list(scan_all(partial(scan_file, unit_size=unit_size), files))


def scan_file(file: SourceFile, unit_size: int) -> ScannedFile:
    """Hash a file and divide it into work units of about `unit_size` bytes, numbered from 0.

    Raises:
        SourceError: The file cannot be read or does not have its format.
    """
    with _errors_with_path(file):
        source_format = FORMATS[file.format]()
        stamped = replace(file, stamp=file_version(file.location))
        if not source_format.verifies_ranges(file):
            stamped = replace(stamped, content=content_digests(stamped))
        scan = source_format.scan(stamped, unit_size)
        if stamped.content is None and any(part.sha256 is None for part in scan.ranges):
            stamped = replace(stamped, content=content_digests(stamped))
            if stamped.content is not None and stamped.content.sha256 != scan.sha256:
                raise changed_error(file.name)
    stamped = replace(stamped, format=scan.format or stamped.format)
    units = tuple(WorkUnit(number, (FilePart(stamped, part),)) for number, part in enumerate(scan.ranges))
    return ScannedFile(stamped, scan.sha256, units)


def read_unit(unit: WorkUnit, log: RowLog) -> Iterator[Batch]:
    """Yield the rows of a work unit in order, in batches; unreadable rows go to the log.

    Raises:
        SourceError: The rest of the file cannot be read, or the file has changed since it was scanned.
    """
    if len(unit.parts) == 1:
        yield from _read_part(unit.parts[0], log)
    else:
        yield from group_into_batches(_rows_of_files(unit, log))


def _rows_of_files(unit: WorkUnit, log: RowLog) -> Iterator[tuple[int, Row, int]]:
    """Yield the number, row and size of the rows of several files, and add a `FileLog` for each."""
    before = 0
    for each in unit.parts:
        log.files.append(FileLog(before))
        unreadable = RowLog(kind=UNREADABLE)
        last = read = 0
        for batch in _read_part(each, unreadable):
            read += len(batch)
            last = int(batch.numbers[-1])
            for number, row in zip(batch.numbers.tolist(), batch.rows, strict=True):
                yield before + number, row, 0  # all files together are smaller than a batch may be
        for bad in unreadable.bad:
            log.quarantine(before + bad.number, bad.reason, bad.content)
        log.files[-1].read = read + len(unreadable.bad)
        before += max([last, *(bad.number for bad in unreadable.bad)])


def _read_part(each: FilePart, log: RowLog) -> Iterator[Batch]:
    file = each.file
    with _errors_with_path(file):
        batches = FORMATS[file.format]().read
        if each.part.last_number is None:
            yield from batches(file, each.part, log)
        else:
            yield from rows_up_to(each.part.last_number, partial(batches, file, each.part), log)
        if file.stamp is not None and file.stamp != file_version(file.location):
            raise changed_error(file.name)


@contextmanager
def _errors_with_path(file: SourceFile) -> Iterator[None]:
    """Convert errors of the operating system to `SourceError`, with the path."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{file.name}: cannot be read: {error.strerror or error}") from None
