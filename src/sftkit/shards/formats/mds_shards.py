"""MosaicML Streaming: MDS files and an index for each split, which `streaming.StreamingDataset` reads.

An MDS file has a number of samples, the offset of each sample and of the end (uint32), the JSON of its columns, and the
samples. A sample has the sizes of those of its columns that vary (uint32), then its columns, sorted by name. Source:
`streaming/base/format/mds/` of mosaicml-streaming 0.13.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.shards.arrow_arrays import numpy_view
from sftkit.shards.manifest import FormatFile
from sftkit.shards.writing.row_gatherer import GatheredRows, SequenceSelection
from sftkit.shards.writing.shard_format import ShardFile, ShardFormat, ShardPlace, WrittenSplit, new_file

FILE_BYTES = 1 << 26
"""Size limit of a file, as that of `MDSWriter`. A file has at least one row."""

_INDEX = "index.json"
_ONE_DIMENSION = 1 << 2 | 2  # of an ndarray: the number of its dimensions, and that their sizes are uint32


class MdsShards(ShardFormat):
    """MDS files of at most `FILE_BYTES` in `mds/SPLIT/`, and their index.

    Token columns are one-dimensional arrays (`ndarray:int32`), text is `str`, and retained columns are `json`.
    """

    registered_as = "mds"

    @property
    def encodings(self) -> dict[str, str]:
        """The MDS encoding of each column, in the order of samples."""
        fields = sorted(self.layout.schema, key=lambda each: each.name)
        return {field.name: self._encoding(field) for field in fields}

    def _encoding(self, field: pa.Field) -> str:
        """Return the encoding of a column; retained values may be null or nested, so they are JSON."""
        if field.name in self.layout.retained.names:
            return "json"
        if field.name == self.layout.text_column:
            return "str"
        if pa.types.is_list(field.type):
            return f"ndarray:{np.dtype(field.type.value_type.to_pandas_dtype()).name}"
        return "int32"

    @contextmanager
    def open(self, place: ShardPlace, sequences: SequenceSelection) -> Iterator[ShardFile]:
        """As `ShardFormat.open`."""
        yield _MdsFiles(place, f"{self.registered_as}/{place.split}/{place.name}", self.encodings)

    def index(self, splits: Mapping[str, WrittenSplit]) -> Mapping[str, bytes]:
        """As `ShardFormat.index`: an `index.json` for each split."""
        return {
            f"{self.registered_as}/{name}/{_INDEX}": _index(split.files, self.encodings)
            for name, split in splits.items()
        }


class _MdsFiles(ShardFile):
    """The files of one shard. The rows of a file are held in memory, because its offsets come before them."""

    def __init__(self, place: ShardPlace, name: str, encodings: Mapping[str, str]) -> None:
        self._place, self._name, self._encodings = place, name, encodings
        self._head = json.dumps(_columns(encodings), sort_keys=True).encode()
        self._samples: list[bytes] = []
        self._bytes = self._empty = 4 + 4 + len(self._head)
        self._files: list[FormatFile] = []

    def write(self, part: GatheredRows) -> None:
        for sample in _samples(part.table, self._encodings):
            if self._samples and self._bytes + 4 + len(sample) > FILE_BYTES:
                self._write_file()
            self._samples.append(sample)
            self._bytes += 4 + len(sample)

    def finish(self) -> tuple[FormatFile, ...]:
        if self._samples:
            self._write_file()
        return tuple(self._files)

    def _write_file(self) -> None:
        offsets = np.cumsum([self._empty + 4 * len(self._samples), *map(len, self._samples)]).astype(np.uint32)
        with new_file(self._place.root, f"{self._name}.{len(self._files):05d}.mds") as file:
            file.write(np.uint32(len(self._samples)).tobytes() + offsets.tobytes() + self._head)
            file.write(b"".join(self._samples))
            self._files.append(file.record(len(self._samples)))
        self._samples, self._bytes = [], self._empty


def _samples(table: pa.Table, encodings: Mapping[str, str]) -> Iterator[bytes]:
    """Encode rows."""
    columns = [_ENCODERS[encodings[name].partition(":")[0]](table[name].combine_chunks()) for name in encodings]
    varies = [_size_of(encoding) is None for encoding in encodings.values()]
    for values in zip(*columns, strict=True):
        sizes = [len(value) for value, varied in zip(values, varies, strict=True) if varied]
        yield b"".join((np.array(sizes, np.uint32).tobytes(), *values))


def _arrays(column: pa.ListArray) -> Iterator[bytes]:
    """Encode lists of numbers as `ndarray` with a data type that the column has: dimensions, then values.

    The padding of a pack has no source, which is written as -1.
    """
    offsets = numpy_view(column.offsets, np.int32).tolist()
    item = np.dtype(column.type.value_type.to_pandas_dtype())
    values = numpy_view(pc.fill_null(column.values, -1), item).view(np.uint8).data
    for start, stop in pairwise(offsets):
        head = bytes((_ONE_DIMENSION,)) + (stop - start).to_bytes(4, "little")
        yield head + values[start * item.itemsize : stop * item.itemsize]


def _numbers(column: pa.Array) -> Iterator[bytes]:
    values: npt.NDArray[Any] = numpy_view(column, column.type.to_pandas_dtype())
    return (value.tobytes() for value in values)


def _strings(column: pa.Array) -> Iterator[bytes]:
    return (value.encode() for value in column.to_pylist())


def _jsons(column: pa.Array) -> Iterator[bytes]:
    return (json.dumps(value, ensure_ascii=False).encode() for value in column.to_pylist())


_ENCODERS: Mapping[str, Callable[[pa.Array], Iterator[bytes]]] = {
    "ndarray": _arrays,
    "int32": _numbers,
    "str": _strings,
    "json": _jsons,
}


def _size_of(encoding: str) -> int | None:
    """Return the number of bytes of each value; None if it varies."""
    return 4 if encoding == "int32" else None


def _columns(encodings: Mapping[str, str]) -> dict[str, Any]:
    """Return what a file, and its entry in the index, say of columns."""
    return {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": [],
        "size_limit": FILE_BYTES,
        "column_names": list(encodings),
        "column_encodings": list(encodings.values()),
        "column_sizes": [_size_of(encoding) for encoding in encodings.values()],
    }


def _index(files: Sequence[FormatFile], encodings: Mapping[str, str]) -> bytes:
    """Return the index of a split."""
    shards = [
        {
            **_columns(encodings),
            "samples": file.rows,
            "raw_data": {"basename": file.file.rpartition("/")[2], "bytes": file.bytes, "hashes": {}},
            "zip_data": None,
        }
        for file in files
    ]
    return json.dumps({"version": 2, "shards": shards}, sort_keys=True).encode()
