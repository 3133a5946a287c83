"""Source files -> work units, the atoms of parallelism and provenance, and reading one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sftkit.errors import SourceError
from sftkit.rows import Batch, RowLog
from sftkit.sources.formats import FORMATS
from sftkit.sources.model import Range, Scan, SourceFile
from sftkit.sources.opening import is_url

_AT_ONCE = 4  # files


@dataclass(frozen=True)
class Unit:
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
    units: tuple[Unit, ...]


def scan_files(files: list[SourceFile], unit_size: int) -> list[ScannedFile]:
    """Hash every file and cut it into units of about `unit_size` bytes, numbered in order.

    Raises:
        SourceError: a file cannot be read, or is not what its format says.
    """
    scanned: list[ScannedFile] = []
    number = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # hashing and waiting for disks leave the interpreter free
        for file, scan in pool.map(lambda file: _scanned(file, unit_size), files):
            units = tuple(Unit(number + index, file, part) for index, part in enumerate(scan.ranges))
            number += len(units)
            scanned.append(ScannedFile(file, scan.sha256, units))
    return scanned


def read_unit(unit: Unit, log: RowLog) -> Iterator[Batch]:
    """The rows of a unit in order, in batches; unreadable rows go to the log.

    Raises:
        SourceError: the file as a whole cannot be read any further, or is not any more what was scanned.
    """
    file = unit.file
    with _named(file):
        yield from FORMATS[file.format].read(file, unit.part, log)
        if file.stamp is not None and file.stamp != _stamp(file):
            raise SourceError(f"{file.path}: changed while it was read; leave it alone, and run the same command again")


def _scanned(file: SourceFile, unit_size: int) -> tuple[SourceFile, Scan]:
    with _named(file):
        stamped = replace(file, stamp=_stamp(file))
        return stamped, FORMATS[file.format].scan(stamped, unit_size)


def _stamp(file: SourceFile) -> tuple[int, int] | None:
    if is_url(file.path):
        return None
    found = Path(file.path).stat()
    return found.st_size, found.st_mtime_ns


@contextmanager
def _named(file: SourceFile) -> Iterator[None]:
    """What the system says while a file is read, as one sentence that names it."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read: {error.strerror or error}") from None
