"""`.npy` files of numpy: packs of NeMo, which are dicts of lists, and arrays of rows of ids."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.core.error_text import first_line
from sftkit.core.rows import INPUT_IDS
from sftkit.errors import SourceError
from sftkit.shards.readers.numpy_files.numpy_header import read_header
from sftkit.shards.readers.numpy_files.pickled_rows import PickledRows
from sftkit.shards.readers.row_file import RowFile
from sftkit.shards.readers.value_arrays import array_of_any, list_of_integers, list_of_numbers
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_binary

_GROUP_ROWS = 64
_GROUP_TOKENS = 1 << 20


class NumpyRowFile(RowFile):
    """A `.npy` file.

    Its groups are 64 packs of NeMo, or rows of a two-dimensional array of ids with about a million tokens. NeMo's
    packs are a pickle, which is read without unpickling (`pickled_rows.py`).
    """

    kind = "NumPy"

    def __init__(self, path: AnyPath) -> None:
        """Open a file.

        Raises:
            SourceError: it is no array of packs or of rows of ids, or is truncated.
        """
        self.path = path
        try:
            self._file = open_binary(path)
            self._size = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            shape, self._type = read_header(self._file)
            self._begin = self._file.tell()
            if self._type.hasobject:
                self._open_packs(shape)
            else:
                self._open_rows(shape)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self.broken(first_line(error).rstrip(".")) from None

    def _open_packs(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 1 or shape[0] > self._size:
            raise ValueError("it is no list of packs")
        self._rows_left = iter(PickledRows(self._file, self._size - self._begin))
        self._next = 0
        first = self._take_packs(min(_GROUP_ROWS, shape[0]))
        self._held = (0, first)
        names = list(first[0]) if first else []
        counts = [min(_GROUP_ROWS, shape[0] - begin) for begin in range(0, shape[0], _GROUP_ROWS)]
        super().__init__(self.path, self._table(first, names).schema, counts)

    def _open_rows(self, shape: tuple[int, ...]) -> None:
        if self._type.kind not in "iu" or len(shape) != 2:
            raise ValueError(f"it holds {'x'.join(map(str, shape))} {self._type.name}, not rows of ids")
        expected = self._begin + shape[0] * shape[1] * self._type.itemsize
        if expected != self._size:
            raise ValueError(f"it has {self._size:,} of {expected:,} bytes")
        self._length = shape[1]
        step = max(1, _GROUP_TOKENS // max(1, shape[1]))
        counts = [min(step, shape[0] - begin) for begin in range(0, shape[0], step)]
        self._firsts = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))
        kind = pa.large_list(pa.from_numpy_dtype(self._type.newbyteorder("=")))
        super().__init__(self.path, pa.schema([(INPUT_IDS, kind)]), counts)

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        if self._type.hasobject:
            return self._table(self._packs(number), columns)
        begin, end = self._firsts[number : number + 2].tolist()
        self._file.seek(self._begin + begin * self._length * self._type.itemsize)
        flat = np.frombuffer(self._file.read((end - begin) * self._length * self._type.itemsize), self._type)
        native = flat.astype(self._type.newbyteorder("="), copy=False)
        return pa.table({name: list_of_numbers(native, [self._length] * (end - begin)) for name in columns})

    def _packs(self, number: int) -> list[dict[str, Any]]:
        """The packs of a group. Going back starts over, for nothing tells where a pack begins."""
        held, packs = self._held
        if held == number:
            return packs
        if number < self._next:
            self._file.seek(self._begin)
            self._rows_left, self._next = iter(PickledRows(self._file, self._size - self._begin)), 0
        while self._next <= number:
            packs = self._take_packs(self.group_rows[self._next])
        self._held = (number, packs)
        return packs

    def _take_packs(self, count: int) -> list[dict[str, Any]]:
        packs = list(islice(self._rows_left, count))
        if len(packs) < count:
            raise ValueError("it has fewer packs than it says")
        self._next += 1
        return packs

    def _table(self, packs: list[dict[str, Any]], columns: list[str]) -> pa.Table:
        return pa.table({name: self._column(name, [pack.get(name) for pack in packs]) for name in columns})

    def _column(self, name: str, values: list[Any]) -> pa.Array:
        if not all(value is None or isinstance(value, (list, np.ndarray)) for value in values):
            return array_of_any(values)
        arrays = list(_whole_numbers(values))
        if len(arrays) == len(values):
            flat = np.concatenate([np.zeros(0, np.int64), *arrays])
            return list_of_numbers(flat, [len(array) for array in arrays])
        try:
            return list_of_integers([None if value is None else list(value) for value in values])
        except (ValueError, OverflowError):
            raise SourceError(f"{self.path}: column {name!r} holds other values than integers") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _whole_numbers(values: list[Any]) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    """Yield lists of whole numbers as int64, masks of 0.0 and 1.0 among them; others are left out."""
    for value in values:
        array = np.asarray([] if value is None else value)
        if array.ndim == 1 and array.dtype.kind in "iufb":
            whole = array.astype(np.int64)
            if array.dtype.kind != "f" or (whole == array).all():
                yield whole
