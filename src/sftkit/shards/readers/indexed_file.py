"""Megatron's indexed datasets: tokens in a `.bin` file, and in the `.idx` file beside it where each sequence is.

The `.idx` file has a header (magic, version 1, data type, number of sequences, number of document ends), the tokens of
each sequence (int32), the byte at which it begins (int64), and the sequence at which each document begins (int64, one
more at the end). Source: `megatron/core/datasets/indexed_dataset.py` of megatron-core 0.16.

A document is a row. If some have several sequences, rows are packs of them.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.rows import INPUT_IDS, SEQ_LENGTHS, Offsets
from sftkit.errors import SourceError
from sftkit.shards.arrow_arrays import number_array
from sftkit.shards.readers.row_file import RowFile, cut_groups
from sftkit.storage.files import file_size
from sftkit.storage.paths import AnyPath
from sftkit.storage.retry import error_reason
from sftkit.storage.streams import open_arrow_file

INDEX_MAGIC = b"MMIDIDX\x00\x00"
INDEX_SUFFIX = ".idx"
TOKENS_SUFFIX = ".bin"

_HEADER = struct.Struct("<9sQBQQ")
_DATA_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
_GROUP_TOKENS = 1 << 20


class IndexedRowFile(RowFile):
    """An `.idx` file and the `.bin` file beside it; a group has about a million tokens."""

    kind = "Megatron .idx"

    def __init__(self, path: AnyPath) -> None:
        """Open a pair of files.

        Args:
            path: the `.idx` file.

        Raises:
            SourceError: one of the files is missing, or the index does not fit its own size or that of the `.bin` file.
        """
        self.path = path
        self._tokens_path = path.with_name(path.name.removesuffix(INDEX_SUFFIX) + TOKENS_SUFFIX)
        try:
            self._read_index()
            self._check_index(file_size(self._tokens_path))
            self._tokens = open_arrow_file(self._tokens_path)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error_reason(error)}") from None
        ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(self._lengths, dtype=np.int64)))
        sizes: Offsets = np.diff(ends[self._documents])
        self._bounds = cut_groups(sizes, _GROUP_TOKENS)
        fields = [pa.field(INPUT_IDS, pa.large_list(pa.from_numpy_dtype(self._type)))]
        if (np.diff(self._documents) > 1).any():
            fields.append(pa.field(SEQ_LENGTHS, pa.large_list(pa.int32())))
        super().__init__(path, pa.schema(fields), np.diff(self._bounds).tolist())

    def _read_index(self) -> None:
        with open_arrow_file(self.path) as file:
            size = file.size()
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                raise self.broken("it ends within its header")
            magic, version, code, sequences, documents = _HEADER.unpack(head)
            if magic != INDEX_MAGIC or version != 1:
                raise self.broken("it does not begin with `MMIDIDX` and version 1")
            kind = np.dtype(_DATA_TYPES.get(code, "V1"))
            if kind.kind not in "iu":
                raise self.broken(f"data type {code} is none of integers, so that it holds no token ids")
            expected = _HEADER.size + 12 * sequences + 8 * documents
            if size not in (expected, expected + sequences):  # the second has a mode for each sequence
                raise self.broken(f"its header names {sequences:,} sequences, which {size:,} bytes cannot describe")
            self._type = kind
            self._lengths = np.frombuffer(file.read_buffer(4 * sequences), "<i4")
            self._begins = np.frombuffer(file.read_buffer(8 * sequences), "<i8")
            self._documents = np.frombuffer(file.read_buffer(8 * documents), "<i8")

    def _check_index(self, size: int) -> None:
        """Check an index against the size (bytes) of the `.bin` file, -1 if there is none."""
        if size < 0:
            raise SourceError(f"{self._tokens_path}: is missing; {self.path.name} describes this file")
        if not len(self._documents) or self._documents[0] != 0 or self._documents[-1] != len(self._lengths):
            raise self.broken("its documents do not begin with the first sequence and end with the last one")
        if (np.diff(self._documents) < 0).any() or (self._lengths < 0).any() or (self._begins < 0).any():
            raise self.broken("it has negative lengths or places")
        sizes = self._lengths.astype(np.int64) * self._type.itemsize
        end = max(int((self._begins + sizes).max(initial=0)), int(sizes.sum()))
        if end > size or (self._begins > size).any():
            raise SourceError(
                f"{self._tokens_path}: has {size:,} bytes, but {self.path.name} describes {end:,}: it was truncated, "
                "or belongs to another index"
            )

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        documents = self._documents[self._bounds[number] : self._bounds[number + 1] + 1]
        first, last = int(documents[0]), int(documents[-1])
        lengths = self._lengths[first:last]
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))
        found = {}
        if INPUT_IDS in columns:
            values = self._read_sequences(first, last)
            found[INPUT_IDS] = _lists(offsets[documents - first], values)
        if SEQ_LENGTHS in columns:
            found[SEQ_LENGTHS] = _lists(documents - first, lengths)
        return pa.table({name: found[name] for name in columns})

    def _read_sequences(self, first: int, last: int) -> npt.NDArray[np.integer]:
        """Read the tokens of sequences, which usually follow one another."""
        begins, sizes = self._begins[first:last], self._lengths[first:last].astype(np.int64) * self._type.itemsize
        if (begins[1:] == begins[:-1] + sizes[:-1]).all():
            parts = [(int(begins[0]), int(sizes.sum()))] if len(begins) else []
        else:
            parts = list(zip(begins.tolist(), sizes.tolist(), strict=True))
        return np.concatenate([np.zeros(0, self._type), *(self._read_part(*part) for part in parts)])

    def _read_part(self, begin: int, size: int) -> npt.NDArray[np.integer]:
        self._tokens.seek(begin)
        data = self._tokens.read_buffer(size)
        if len(data) != size:
            raise OSError(f"{self._tokens_path.name} ends too early")
        return np.frombuffer(data, self._type)

    def close(self) -> None:
        """Close the file."""
        self._tokens.close()


def _lists(offsets: npt.NDArray[np.int64], values: npt.NDArray[np.integer]) -> pa.LargeListArray:
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return pa.LargeListArray.from_arrays(number_array(offsets.astype(np.int64)), number_array(native))
