"""JSON Lines shards: one object a row, with the columns of the Parquet shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.shards.arrow_arrays import numpy_view
from sftkit.shards.manifest import FormatFile
from sftkit.shards.writing.row_gatherer import GatheredRows, SequenceSelection
from sftkit.shards.writing.shard_format import NewFile, ShardFile, ShardFormat, ShardPlace, new_file

_MOST_TEXTS = 4 << 20
"""Integers whose texts are kept; a vocabulary is smaller."""


_LISTS_OF_IDS = (pa.list_(pa.int32()), pa.list_(pa.int8()))
_LISTS_OF_WEIGHTS = pa.list_(pa.float32())
"""Columns of tokens; retained columns have 64 bits."""


class JsonLinesShards(ShardFormat):
    """One file of JSON Lines for each shard, in `jsonl/`. Every column is in it; text is UTF-8."""

    registered_as = "jsonl"

    @contextmanager
    def open(self, place: ShardPlace, sequences: SequenceSelection) -> Iterator[ShardFile]:
        """As `ShardFormat.open`."""
        with new_file(place.root, f"{self.registered_as}/{place.name}.jsonl") as file:
            yield _JsonLinesFile(file)


class _JsonLinesFile(ShardFile):
    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._rows = 0
        self._integers = _IntegerTexts()

    def write(self, part: GatheredRows) -> None:
        pieces: list[Any] = []
        for name, column in zip(part.table.column_names, part.table.columns, strict=True):
            pieces += [f"{', ' if pieces else '{'}{json.dumps(name)}: ", self._values(column.combine_chunks())]
        lines = pc.binary_join_element_wise(*pieces, "}\n", "")
        for chunk in lines.chunks if isinstance(lines, pa.ChunkedArray) else [lines]:
            offsets = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            self._file.write(memoryview(chunk.buffers()[2])[offsets[0] : offsets[-1]])
        self._rows += part.table.num_rows

    def finish(self) -> tuple[FormatFile, ...]:
        return (self._file.record(self._rows),)

    def _values(self, column: pa.Array) -> pa.Array:
        """Return the JSON text of each value of a column."""
        if column.type in _LISTS_OF_IDS and not column.values.null_count:
            return _bracketed(
                column, self._integers.of(numpy_view(column.values, column.type.value_type.to_pandas_dtype()))
            )
        if column.type == _LISTS_OF_WEIGHTS:
            return _bracketed(column, pc.cast(column.values, pa.string()))
        return pa.array([json.dumps(value, ensure_ascii=False) for value in column.to_pylist()], pa.string())


class _IntegerTexts:
    """The decimal texts of integers. They are made once and looked up, which is faster than to convert each."""

    def __init__(self) -> None:
        self._first = 0
        self._texts = pa.array([], pa.string())

    def of(self, values: npt.NDArray[Any]) -> pa.Array:
        """Return the text of each integer.

        Example:
            >>> _IntegerTexts().of(np.array([7, -100], np.int32)).to_pylist()
            ['7', '-100']
        """
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        if high - low >= _MOST_TEXTS:
            return pc.cast(pa.array(values), pa.string())
        if low < self._first or high >= self._first + len(self._texts):
            low, high = min(low, self._first), max(high, self._first + len(self._texts) - 1)
            if high - low >= _MOST_TEXTS:
                return pc.cast(pa.array(values), pa.string())
            self._first, self._texts = low, pa.array([str(number) for number in range(low, high + 1)], pa.string())
        return self._texts.take(pa.array(values.astype(np.int32) - self._first))


def _bracketed(column: pa.ListArray, texts: pa.Array) -> pa.Array:
    """Join the texts of each row's values, and put brackets around them."""
    offsets = numpy_view(column.offsets, np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), texts)
    return pc.binary_join_element_wise("[", pc.binary_join(lists, ", "), "]", "")
