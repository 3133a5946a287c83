"""Sets of `.npy` files, which `output_format: npy` writes: an array of each column, and the offsets of rows in them.

`X.input_ids.npy` and `X.row_offsets.npy` make a set; the other arrays of `X` belong to it. Row i has the tokens
`row_offsets[i]` to `row_offsets[i + 1]` (exclusive). `seq_offsets` divide the same tokens into the sequences of packs.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.error_text import first_line
from sftkit.core.rows import ATTENTION_MASK, INPUT_IDS, LABELS, PADDING, SEQ_LENGTHS, SOURCE, Offsets
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import SourceError
from sftkit.shards.arrow_arrays import number_array
from sftkit.shards.readers.numpy_files.numpy_header import read_header
from sftkit.shards.readers.row_file import RowFile, cut_groups
from sftkit.storage.files import file_size
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_binary

ARRAY_SUFFIX = ".npy"
ROW_OFFSETS = "row_offsets"
SEQ_OFFSETS = "seq_offsets"
ARRAYS_OF_TOKENS = (INPUT_IDS, LABELS, ATTENTION_MASK, LOSS_WEIGHTS, TOKEN_KINDS)
"""Arrays with a number for each token."""

_IDS = f".{INPUT_IDS}{ARRAY_SUFFIX}"
_GROUP_TOKENS = 1 << 20


class ArraySetRowFile(RowFile):
    """A set of arrays; a group has about a million tokens. Only the offsets are held in memory."""

    kind = "NumPy"

    def __init__(self, path: AnyPath) -> None:
        """Open all arrays of a set.

        Args:
            path: that of its `input_ids`.

        Raises:
            SourceError: an array has another type or size than its header or the offsets say.
        """
        self._ids = path
        names = (*ARRAYS_OF_TOKENS, ROW_OFFSETS, SEQ_OFFSETS, PADDING, SOURCE)
        self._arrays = {name: _NumberArray(place) for name in names if file_size(place := self._place(name)) >= 0}
        self._row_offsets = self._read_offsets(ROW_OFFSETS)
        self._has_sequences = SEQ_OFFSETS in self._arrays
        if self._has_sequences:
            self._seq_offsets = self._read_offsets(SEQ_OFFSETS)
            self._row_sequences = self._find_sequences()
        self._check_lengths()
        self._bounds = cut_groups(np.diff(self._row_offsets), _GROUP_TOKENS)
        super().__init__(path, self._columns(0, 0).schema, np.diff(self._bounds).tolist())

    def _place(self, name: str) -> AnyPath:
        return self._ids.with_name(f"{self._ids.name.removesuffix(_IDS)}.{name}{ARRAY_SUFFIX}")

    def _read_offsets(self, name: str) -> Offsets:
        array = self._arrays[name]
        tokens = len(self._arrays[INPUT_IDS])
        if array.type.kind not in "iu" or not len(array):
            raise self._broken(name, "it holds no offsets, which are integers from 0 on")
        offsets = array.read(0, len(array)).astype(np.int64)
        if offsets[0] != 0 or offsets[-1] != tokens or (np.diff(offsets) < 0).any():
            raise self._broken(name, f"its offsets do not ascend from 0 to {tokens:,}, the tokens of {self._ids.name}")
        return offsets

    def _find_sequences(self) -> Offsets:
        """The first sequence of each row, and the end of the last one, shape (rows + 1,)."""
        found = np.searchsorted(self._seq_offsets, self._row_offsets)
        if (self._seq_offsets[found] != self._row_offsets).any():
            raise self._broken(SEQ_OFFSETS, f"a row begins within a sequence ({self._place(ROW_OFFSETS).name})")
        found[-1] = len(self._seq_offsets) - 1
        return found

    def _check_lengths(self) -> None:
        """Check that each array has a number for each token, row or sequence."""
        rows = len(self._row_offsets) - 1
        sequences = len(self._seq_offsets) - 1 if self._has_sequences else rows
        for name, array in self._arrays.items():
            if name in (ROW_OFFSETS, SEQ_OFFSETS):
                continue
            expected = {PADDING: rows, SOURCE: sequences}.get(name, len(self._arrays[INPUT_IDS]))
            if len(array) != expected:
                raise self._broken(name, f"it holds {len(array):,} numbers, not {expected:,} as the others of the set")
            if array.type.kind not in ("iuf" if name == LOSS_WEIGHTS else "iu"):
                raise self._broken(name, f"it holds {array.type.name}, not integers")

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        return self._columns(*self._bounds[number : number + 2].tolist()).select(columns)

    def _columns(self, first: int, stop: int) -> pa.Table:
        """The columns of some rows."""
        offsets = self._row_offsets[first : stop + 1]
        found = {
            name: _lists(offsets, self._arrays[name].read(int(offsets[0]), int(offsets[-1])))
            for name in ARRAYS_OF_TOKENS
            if name in self._arrays
        }
        sequences = self._row_sequences[first : stop + 1] if self._has_sequences else None
        if sequences is not None:
            ends = self._seq_offsets[sequences[0] : sequences[-1] + 1]
            found[SEQ_LENGTHS] = _lists(sequences, np.diff(ends).astype(np.int32))
        if PADDING in self._arrays:
            found[PADDING] = number_array(self._arrays[PADDING].read(first, stop))
        if SOURCE in self._arrays and sequences is None:
            found[SOURCE] = number_array(self._arrays[SOURCE].read(first, stop))
        elif SOURCE in self._arrays and sequences is not None:
            found[SOURCE] = _lists(sequences, self._arrays[SOURCE].read(int(sequences[0]), int(sequences[-1])))
        return pa.table(found)

    def _broken(self, name: str, problem: str) -> SourceError:
        return SourceError(f"{self._place(name)}: does not belong to {self._ids.name}: {problem}")

    def close(self) -> None:
        """Close the files."""
        for array in self._arrays.values():
            array.close()


class _NumberArray:
    """An array of one dimension, read in ranges."""

    def __init__(self, path: AnyPath) -> None:
        self._path = path
        try:
            self._file = open_binary(path)
            size = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            shape, self.type = read_header(self._file)
            self._begin = self._file.tell()
            if len(shape) != 1 or self.type.hasobject:
                raise ValueError(f"it holds {'x'.join(map(str, shape))} {self.type.name}, not one list of numbers")
            expected = self._begin + shape[0] * self.type.itemsize
            if expected != size:
                raise ValueError(f"it has {size:,} of {expected:,} bytes")
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: is not a valid NumPy file: {first_line(error).rstrip('.')}") from None
        self._length = shape[0]

    def __len__(self) -> int:
        return self._length

    def read(self, first: int, stop: int) -> npt.NDArray[Any]:
        """Read some numbers, in the byte order of this machine."""
        self._file.seek(self._begin + first * self.type.itemsize)
        size = (stop - first) * self.type.itemsize
        data = self._file.read(size)
        if len(data) != size:
            raise OSError(f"{self._path.name} ends too early")
        return np.frombuffer(data, self.type).astype(self.type.newbyteorder("="), copy=False)

    def close(self) -> None:
        self._file.close()


def is_array_set(path: AnyPath) -> bool:
    """Whether a path is that of the `input_ids` of a set."""
    return path.name.endswith(_IDS) and file_size(_sibling(path, ROW_OFFSETS)) >= 0


def ids_of_set(path: AnyPath) -> AnyPath:
    """Return the `input_ids` of the set that an array belongs to; other paths as they are."""
    ids = _sibling(path, INPUT_IDS)
    return ids if path.name.endswith(ARRAY_SUFFIX) and file_size(ids) >= 0 and is_array_set(ids) else path


def set_names(names: list[str]) -> list[str]:
    """Return one file of each set, given the names of all `.npy` files of a folder; those of no set as they are.

    Example:
        >>> set_names(["a.input_ids.npy", "a.labels.npy", "a.row_offsets.npy", "packs.npy"])
        ['a.input_ids.npy', 'packs.npy']
    """
    stems = {name.removesuffix(f".{ROW_OFFSETS}{ARRAY_SUFFIX}") for name in names}
    return [name for name in names if name.endswith(_IDS) or _stem(name) not in stems]


def _stem(name: str) -> str:
    """The name of a set, which the name of one of its arrays begins with."""
    return name.removesuffix(ARRAY_SUFFIX).rpartition(".")[0]


def _sibling(path: AnyPath, name: str) -> AnyPath:
    return path.with_name(f"{_stem(path.name)}.{name}{ARRAY_SUFFIX}")


def _lists(offsets: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(number_array(offsets - offsets[0]), number_array(values))
