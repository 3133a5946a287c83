"""Groups many small files into common work units: a unit for each row would take far longer than the row itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, groupby

from sftkit.sources.work_units import TEXT_FORMATS, ScannedFile, WorkUnit

_FEWEST_FILES = 64
"""Fewer small files in a row are not grouped."""
_MOST_FILES, _MOST_BYTES = 1024, 4 << 20
"""Of a group, which is not larger than `unit_size` either. A file is small if `_FEWEST_FILES` such files fit in."""
_ENDS_GROUP = "00"
"""A file whose sha256 begins like this ends its group: one in 256. When a file is added or removed, groups before the
file and groups after the next such file stay the same."""


def group_small_files(files: Sequence[ScannedFile], unit_size: int) -> tuple[WorkUnit, ...]:
    """Return the units of all files, numbered in order. Many small files that follow each other have common units.

    Args:
        files: the files of a run.
        unit_size: bytes of source in a unit, at most.
    """
    most_bytes = min(_MOST_BYTES, unit_size)
    runs = groupby(files, partial(_kind, most_bytes // _FEWEST_FILES))
    units = chain.from_iterable(_units(list(run), most_bytes) for _, run in runs)
    return tuple(replace(unit, number=number) for number, unit in enumerate(units))


def _kind(most_bytes: int, file: ScannedFile) -> tuple[object, ...] | str:
    """What files of a group have in common; for a file that cannot be in one, its own path."""
    source = file.file
    is_small = len(file.units) == 1 and source.size <= most_bytes
    if is_small and source.format in TEXT_FORMATS and source.compression is None:
        return source.dataset, source.format, source.reader
    return source.path


def _units(files: Sequence[ScannedFile], most_bytes: int) -> Iterable[WorkUnit]:
    if len(files) < _FEWEST_FILES:
        return chain.from_iterable(file.units for file in files)
    return (
        WorkUnit(0, tuple(part for file in group for unit in file.units for part in unit.parts))
        for group in _groups(files, most_bytes)
    )


def _groups(files: Sequence[ScannedFile], most_bytes: int) -> Iterator[list[ScannedFile]]:
    group: list[ScannedFile] = []
    size = 0
    for file in files:
        if group and (len(group) >= _MOST_FILES or size + file.file.size > most_bytes):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.file.size
        if file.sha256.startswith(_ENDS_GROUP):
            yield group
            group, size = [], 0
    if group:
        yield group
