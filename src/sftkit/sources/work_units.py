"""Source files -> work units, the atoms of parallelism and provenance, and reading one."""

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

_AT_ONCE = 4  # files


@dataclass(frozen=True)
class WorkUnit:
    """A range of one source file. Its output depends on its bytes and the pipeline alone.

    number: its place among all units of the plan, which is also the order of the rows.
    """

    number: int
    file: SourceFile
    part: Range

    def __str__(self) -> str:
        return f"{self.file.path} (rows from {self.part.first_number})"


@dataclass(frozen=True)
class ScannedFile:
    """A source file, its content hash and the units it falls into."""

    file: SourceFile
    sha256: str
    units: tuple[WorkUnit, ...]


ScanExecutor = Callable[[Callable[[SourceFile], T], Sequence[SourceFile]], Iterable[T]]
"""Applies a function to some files, and gives the results in their order."""


def scan_in_threads(scan: Callable[[SourceFile], T], files: Sequence[SourceFile]) -> Iterator[T]:
    """Scan files in this process: hashing and waiting for disks leave the interpreter free."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(scan, files)


def scan_files(
    files: list[SourceFile], unit_size: int, scan_all: ScanExecutor[ScannedFile] = scan_in_threads
) -> list[ScannedFile]:
    """Hash every file and cut it into units of about `unit_size` bytes.

    Raises:
        SourceError: a file cannot be read, or is not what its format says.
    """
    return list(scan_all(partial(scan_file, unit_size=unit_size), files))


def read_unit(unit: WorkUnit, log: RowLog) -> Iterator[Batch]:
    """The rows of a unit in order, in batches; unreadable rows go to the log.

    Raises:
        SourceError: the file as a whole cannot be read any further, or is not any more what was scanned.
    """
    file = unit.file
    with _named(file):
        yield from FORMATS[file.format].read(file, unit.part, log)
        if file.stamp is not None and file.stamp != _stamp(file):
            raise SourceError(f"{file.path}: changed while it was read; leave it alone, and run the same command again")


def scan_file(file: SourceFile, unit_size: int) -> ScannedFile:
    """Hash a file and cut it into units of about `unit_size` bytes, numbered from 0.

    Raises:
        SourceError: it cannot be read, or is not what its format says.
    """
    with _named(file):
        stamped = replace(file, stamp=_stamp(file))
        scan = FORMATS[file.format].scan(stamped, unit_size)
    units = tuple(WorkUnit(number, stamped, part) for number, part in enumerate(scan.ranges))
    return ScannedFile(stamped, scan.sha256, units)


def _stamp(file: SourceFile) -> tuple[int, int | str]:
    return file_version(file.location)


@contextmanager
def _named(file: SourceFile) -> Iterator[None]:
    """What the system says while a file is read, as one sentence that names it."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
