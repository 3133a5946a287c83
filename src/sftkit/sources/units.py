"""Source files -> work units, the atoms of parallelism and provenance, and reading one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sftkit.rows import Batch, RowLog
from sftkit.sources.formats import FORMATS
from sftkit.sources.model import Range, SourceFile

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
        scans = pool.map(lambda file: FORMATS[file.format].scan(file, unit_size), files)
        for file, scan in zip(files, scans, strict=True):
            units = tuple(Unit(number + index, file, part) for index, part in enumerate(scan.ranges))
            number += len(units)
            scanned.append(ScannedFile(file, scan.sha256, units))
    return scanned


def read_unit(unit: Unit, log: RowLog) -> Iterator[Batch]:
    """The rows of a unit in order, in batches; unreadable rows go to the log.

    Raises:
        SourceError: the file as a whole cannot be read any further.
    """
    yield from FORMATS[unit.file.format].read(unit.file, unit.part, log)
