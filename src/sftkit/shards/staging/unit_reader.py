"""Reads rows of a staged unit, in any order, without holding the unit in memory."""

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
"""A byte offset in the file, and the contiguous array to fill from there."""

_MAX_GAP = 256 << 10  # bytes; a larger gap costs more to download than a second request


class UnitReader:
    """Reads rows of one staged unit by their byte offsets.

    Only the row offsets are held in memory: 4 bytes per row and distinct set of lengths. The file is not
    memory-mapped, since mapped pages would count as memory of this process. Use it in two steps:

        offsets, lengths = reader.locate("input_ids", rows)
        reader.read((offset, array), ...)
    """

    def __init__(self, path: AnyPath, index: RowIndex) -> None:
        self._path = path
        self._batch_ends = np.cumsum(index.batch_rows, dtype=np.int64)
        self._batch_starts = index.batch_starts
        self._value_bytes = index.value_bytes
        self._offsets: dict[str, npt.NDArray[Any]] = {}  # within each batch, which has one more offset than rows
        known: dict[int, npt.NDArray[Any]] = {}
        for name, lengths in index.lengths.items():
            if id(lengths) not in known:
                known[id(lengths)] = _batch_offsets(lengths, index.batch_rows)
            self._offsets[name] = known[id(lengths)]

    def locate(self, name: str, rows: Offsets) -> tuple[Offsets, Offsets]:
        """Return the byte offset and the length in values (tokens, or bytes of text) of some rows of a column.

        Args:
            name: the column.
            rows: indices of rows in the unit, shape (rows,).

        Returns:
            Two int64 arrays, shape (rows,).
        """
        batches = np.searchsorted(self._batch_ends, rows, side="right")
        offsets, entries = self._offsets[name], rows + batches
        starts = offsets[entries].astype(np.int64)
        return self._batch_starts[name][batches] + starts * self._value_bytes[name], offsets[entries + 1] - starts

    def read(self, requests: Iterable[ReadRequest]) -> None:
        """Fill arrays with the values at byte offsets of the file.

        Raises:
            OSError: the file cannot be read.
        """
        if isinstance(self._path, RemotePath):
            _read_remote(self._path, [(offset, array) for offset, array in requests if array.nbytes])
        else:
            _read_local(self._path, requests)


def _batch_offsets(lengths: npt.NDArray[Any], batch_rows: Offsets) -> npt.NDArray[Any]:
    """Convert lengths of rows to offsets within each record batch, concatenated."""
    parts = np.split(lengths, np.cumsum(batch_rows)[:-1]) if len(batch_rows) else []
    return np.concatenate(
        [np.zeros(0, lengths.dtype), *(lengths_to_offsets(part).astype(lengths.dtype) for part in parts)]
    )


def _read_local(path: Path, requests: Iterable[ReadRequest]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for offset, array in requests:
            view = memoryview(array.view(np.uint8).data) if len(array) else memoryview(b"")
            while view:
                count = os.preadv(descriptor, [view], offset)
                if not count:
                    raise OSError(f"{path}: ends too early")
                view, offset = view[count:], offset + count
    finally:
        os.close(descriptor)


def _read_remote(path: RemotePath, requests: Sequence[ReadRequest]) -> None:
    """Read ranges of a remote file; ranges that are close together are fetched in one request."""
    ranges: list[list[int]] = []
    ordered = sorted(requests, key=lambda request: request[0])
    for offset, array in ordered:
        if ranges and offset - ranges[-1][1] <= _MAX_GAP:
            ranges[-1][1] = max(ranges[-1][1], offset + array.nbytes)
        else:
            ranges.append([offset, offset + array.nbytes])
    fetched = zip(ranges, read_ranges(path, [(start, stop) for start, stop in ranges]), strict=True)
    (start, stop), data = next(fetched, ((0, 0), b""))
    for offset, array in ordered:
        if offset >= stop:
            (start, stop), data = next(fetched)
        array.view(np.uint8)[:] = np.frombuffer(data, np.uint8, array.nbytes, offset - start)
