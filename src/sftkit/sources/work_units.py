"""Work units: dividing source files into ranges that are processed independently, and reading one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch
from sftkit.errors import SourceError
from sftkit.sources.format_registry import FORMATS
from sftkit.sources.source_file import Range, SourceFile
from sftkit.storage.files import file_version

T = TypeVar("T")

_SCAN_THREADS = 4


@dataclass(frozen=True)
class WorkUnit:
    """A range of one source file. Its output depends only on its bytes and on the pipeline."""

    number: int
    """Index among all units of the plan, which is also the order of their rows."""
    file: SourceFile
    part: Range

    def __str__(self) -> str:
        return f"{self.file.name} (rows from {self.part.first_number})"


@dataclass(frozen=True)
class ScannedFile:
    """A source file, its sha256 and its work units."""

    file: SourceFile
    sha256: str
    units: tuple[WorkUnit, ...]


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
        stamped = replace(file, stamp=file_version(file.location))
        scan = FORMATS[file.format]().scan(stamped, unit_size)
    stamped = replace(stamped, format=scan.format or stamped.format)
    units = tuple(WorkUnit(number, stamped, part) for number, part in enumerate(scan.ranges))
    return ScannedFile(stamped, scan.sha256, units)


def read_unit(unit: WorkUnit, log: RowLog) -> Iterator[Batch]:
    """Yield the rows of a work unit in order, in batches; unreadable rows go to the log.

    Raises:
        SourceError: The rest of the file cannot be read, or the file has changed since it was scanned.
    """
    file = unit.file
    with _errors_with_path(file):
        yield from FORMATS[file.format]().read(file, unit.part, log)
        if file.stamp is not None and file.stamp != file_version(file.location):
            raise SourceError(
                f"{file.path}: changed while it was read; run the command again when nothing writes to it"
            )


@contextmanager
def _errors_with_path(file: SourceFile) -> Iterator[None]:
    """Convert errors of the operating system to `SourceError`, with the path."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
