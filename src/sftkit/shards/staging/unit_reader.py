"""Staged units as they are gathered into shards: any rows, in any order, without holding the units in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Offsets, lengths_to_offsets
from sftkit.shards.staging.row_index import RowIndex
from sftkit.storage.files import read_ranges
from sftkit.storage.paths import AnyPath, RemotePath

ReadRequest = tuple[int, npt.NDArray[Any]]
"""The byte at which values lie in a file, and the array that they are to fill."""

_GAP = 256 << 10  # bytes that are fetched for nothing sooner than a request more is made


class UnitReader:
    """The rows of one staged unit.

    Of its values only the places of the rows are held (4 bytes a row, where columns have the same lengths); they are
    read from the file when they are asked for. What is mapped into memory would count as memory of this process, page
    by page.
    """

    def __init__(self, path: AnyPath, index: RowIndex) -> None:
        self._path = path
        self._ends = np.cumsum(index.batch_rows, dtype=np.int64)  # of the record batches, in rows
        self._begins = index.batch_starts
        self._widths = index.value_bytes
        self._offsets: dict[str, npt.NDArray[Any]] = {}  # within each batch: one more of them than it has rows
        known: dict[int, npt.NDArray[Any]] = {}
        for name, lengths in index.lengths.items():
            if id(lengths) not in known:
                known[id(lengths)] = _offsets(lengths, index.batch_rows)
            self._offsets[name] = known[id(lengths)]

    def locate(self, name: str, rows: Offsets) -> tuple[Offsets, Offsets]:
        """(byte in the file, values) of a column in some rows, shape (rows,) each; a value is a token, or a byte."""
        batches = np.searchsorted(self._ends, rows, side="right")
        offsets, entries = self._offsets[name], rows + batches
        starts = offsets[entries].astype(np.int64)
        return self._begins[name][batches] + starts * self._widths[name], offsets[entries + 1] - starts

    def read(self, runs: Iterable[ReadRequest]) -> None:
        """Fill arrays with the values that lie at a byte of the file, one after the other.

        Raises:
            OSError: they cannot be read.
        """
        if isinstance(self._path, RemotePath):
            _fetch(self._path, [(place, into) for place, into in runs if into.nbytes])
        else:
            _read(self._path, runs)


def _offsets(lengths: npt.NDArray[Any], counts: Offsets) -> npt.NDArray[Any]:
    """Lengths of rows -> their offsets within each record batch."""
    cuts = np.split(lengths, np.cumsum(counts)[:-1]) if len(counts) else []
    return np.concatenate(
        [np.zeros(0, lengths.dtype), *(lengths_to_offsets(part).astype(lengths.dtype) for part in cuts)]
    )


def _read(path: Path, runs: Iterable[ReadRequest]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for place, into in runs:
            view = memoryview(into.view(np.uint8).data) if len(into) else memoryview(b"")
            while view:
                count = os.preadv(descriptor, [view], place)
                if not count:
                    raise OSError(f"{path}: ends too early")
                view, place = view[count:], place + count
    finally:
        os.close(descriptor)


def _fetch(path: RemotePath, runs: Sequence[ReadRequest]) -> None:
    """Read runs of a remote file with few requests: what lies close together is fetched as one stretch."""
    stretches: list[list[int]] = []
    ordered = sorted(runs, key=lambda run: run[0])
    for place, into in ordered:
        if stretches and place - stretches[-1][1] <= _GAP:
            stretches[-1][1] = max(stretches[-1][1], place + into.nbytes)
        else:
            stretches.append([place, place + into.nbytes])
    fetched = zip(stretches, read_ranges(path, [(start, stop) for start, stop in stretches]), strict=True)
    (start, stop), data = next(fetched, ((0, 0), b""))
    for place, into in ordered:
        if place >= stop:
            (start, stop), data = next(fetched)
        into.view(np.uint8)[:] = np.frombuffer(data, np.uint8, into.nbytes, place - start)
