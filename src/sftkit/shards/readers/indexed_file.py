"""Megatron's indexed datasets: tokens in a `.bin` file, and in the `.idx` file beside it where each sequence is.

The `.idx` file has a header (magic, version 1, data type, number of sequences, number of document ends), the tokens of
each sequence (int32), the byte at which it begins (int64), and the sequence at which each document begins (int64, one
more at the end). Source: `megatron/core/datasets/indexed_dataset.py` of megatron-core 0.16.

A document is a row. If some have several sequences, rows are packs of them. Beside the tokens in `X_text_document`, the
loss mask of each of them may be in `X_loss_mask_document` (the convention of FlagScale's `SFTDataset`).
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

_TEXT_DOCUMENT = "_text_document"
_MASK_DOCUMENT = "_loss_mask_document"
_LOSS_MASK = "loss_mask"

_HEADER = struct.Struct("<9sQBQQ")
_DATA_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
_GROUP_TOKENS = 1 << 20


class IndexedRowFile(RowFile):
    """A pair of an `.idx` and a `.bin` file; a group has about a million tokens."""

    kind = "Megatron"

    def __init__(self, path: AnyPath) -> None:
        """Open a pair of files, and that of the loss mask if there is one.

        Args:
            path: the `.idx` file.

        Raises:
            SourceError: one of the files is missing, or the index does not fit its own size or that of the `.bin` file.
        """
        self._tokens = _IndexedNumbers(path)
        mask = _mask_of(path)
        self._mask = _IndexedNumbers(mask) if file_size(mask) >= 0 else None
        if self._mask is not None and not self._mask.has_lengths_of(self._tokens):
            raise SourceError(f"{mask}: has other sequences than {path.name}; write both again, or move it elsewhere")
        ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(self._tokens.lengths, dtype=np.int64)))
        sizes: Offsets = np.diff(ends[self._tokens.documents])
        self._bounds = cut_groups(sizes, _GROUP_TOKENS)
        fields = [pa.field(INPUT_IDS, pa.large_list(pa.from_numpy_dtype(self._tokens.type)))]
        if self._mask is not None:
            fields.append(pa.field(_LOSS_MASK, pa.large_list(pa.from_numpy_dtype(self._mask.type))))
        if (np.diff(self._tokens.documents) > 1).any():
            fields.append(pa.field(SEQ_LENGTHS, pa.large_list(pa.int32())))
        super().__init__(path, pa.schema(fields), np.diff(self._bounds).tolist())

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        documents = self._tokens.documents[self._bounds[number] : self._bounds[number + 1] + 1]
        first, last = int(documents[0]), int(documents[-1])
        lengths = self._tokens.lengths[first:last]
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))[documents - first]
        found = {}
        if INPUT_IDS in columns:
            found[INPUT_IDS] = _lists(offsets, self._tokens.read(first, last))
        if _LOSS_MASK in columns and self._mask is not None:
            found[_LOSS_MASK] = _lists(offsets, self._mask.read(first, last))
        if SEQ_LENGTHS in columns:
            found[SEQ_LENGTHS] = _lists(documents - first, lengths)
        return pa.table({name: found[name] for name in columns})

    def close(self) -> None:
        """Close the files."""
        self._tokens.close()
        if self._mask is not None:
            self._mask.close()


class _IndexedNumbers:
    """The numbers of all sequences, in a `.bin` file, and the index of them."""

    def __init__(self, path: AnyPath) -> None:
        self._path = path
        self._data_path = path.with_name(path.name.removesuffix(INDEX_SUFFIX) + TOKENS_SUFFIX)
        try:
            self._read_index()
            self._check_index(file_size(self._data_path))
            self._data = open_arrow_file(self._data_path)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error_reason(error)}") from None

    def has_lengths_of(self, other: _IndexedNumbers) -> bool:
        """Whether both have sequences of the same lengths."""
        return np.array_equal(self.lengths, other.lengths)

    def _read_index(self) -> None:
        with open_arrow_file(self._path) as file:
            size = file.size()
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                raise self._broken("it ends within its header")
            magic, version, code, sequences, documents = _HEADER.unpack(head)
            if magic != INDEX_MAGIC or version != 1:
                raise self._broken("it does not begin with `MMIDIDX` and version 1")
            kind = np.dtype(_DATA_TYPES.get(code, "V1"))
            if kind.kind not in "iu":
                raise self._broken(f"data type {code} is none of integers, so that it holds no token ids")
            expected = _HEADER.size + 12 * sequences + 8 * documents
            if size not in (expected, expected + sequences):  # the second has a mode for each sequence
                raise self._broken(f"its header names {sequences:,} sequences, which {size:,} bytes cannot describe")
            self.type = kind
            self.lengths = np.frombuffer(file.read_buffer(4 * sequences), "<i4")
            self._begins = np.frombuffer(file.read_buffer(8 * sequences), "<i8")
            self.documents = np.frombuffer(file.read_buffer(8 * documents), "<i8")

    def _check_index(self, size: int) -> None:
        """Check an index against the size (bytes) of the `.bin` file, -1 if there is none."""
        if size < 0:
            raise SourceError(f"{self._data_path}: is missing; {self._path.name} describes this file")
        if not len(self.documents) or self.documents[0] != 0 or self.documents[-1] != len(self.lengths):
            raise self._broken("its documents do not begin with the first sequence and end with the last one")
        if (np.diff(self.documents) < 0).any() or (self.lengths < 0).any() or (self._begins < 0).any():
            raise self._broken("it has negative lengths or places")
        sizes = self.lengths.astype(np.int64) * self.type.itemsize
        end = max(int((self._begins + sizes).max(initial=0)), int(sizes.sum()))
        if end > size or (self._begins > size).any():
            raise SourceError(
                f"{self._data_path}: has {size:,} bytes, but {self._path.name} describes {end:,}: it was truncated, "
                "or belongs to another index"
            )

    def read(self, first: int, last: int) -> npt.NDArray[np.integer]:
        """Read the numbers of sequences, which usually follow one another."""
        begins, sizes = self._begins[first:last], self.lengths[first:last].astype(np.int64) * self.type.itemsize
        if (begins[1:] == begins[:-1] + sizes[:-1]).all():
            parts = [(int(begins[0]), int(sizes.sum()))] if len(begins) else []
        else:
            parts = list(zip(begins.tolist(), sizes.tolist(), strict=True))
        return np.concatenate([np.zeros(0, self.type), *(self._read_part(*part) for part in parts)])

    def _read_part(self, begin: int, size: int) -> npt.NDArray[np.integer]:
        self._data.seek(begin)
        data = self._data.read_buffer(size)
        if len(data) != size:
            raise OSError(f"{self._data_path.name} ends too early")
        return np.frombuffer(data, self.type)

    def _broken(self, problem: str) -> SourceError:
        return SourceError(f"{self._path}: is not a valid {IndexedRowFile.kind} file: {problem}")

    def close(self) -> None:
        """Close the file."""
        self._data.close()


def indexed_names(names: list[str]) -> list[str]:
    """Return the `.bin` files of pairs with tokens, given the names of all `.idx` files of a folder.

    Example:
        >>> indexed_names(["a_loss_mask_document.idx", "a_text_document.idx"])
        ['a_text_document.bin']
    """
    masks = {name.replace(_TEXT_DOCUMENT, _MASK_DOCUMENT) for name in names if _TEXT_DOCUMENT in name}
    return [name.removesuffix(INDEX_SUFFIX) + TOKENS_SUFFIX for name in names if name not in masks]


def _mask_of(path: AnyPath) -> AnyPath:
    """Return the index that the loss mask of some tokens has."""
    stem = path.name.removesuffix(INDEX_SUFFIX).removesuffix(_TEXT_DOCUMENT)
    return path.with_name(stem + _MASK_DOCUMENT + INDEX_SUFFIX)


def _lists(offsets: npt.NDArray[np.int64], values: npt.NDArray[np.integer]) -> pa.LargeListArray:
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return pa.LargeListArray.from_arrays(number_array(offsets.astype(np.int64)), number_array(native))
