"""JSON Lines shards: one object a row, with the columns of the Parquet shards."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, pairwise, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.shards.arrow_arrays import number_array, numpy_view
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
        texts: list[Iterable[bytes | memoryview]] = []
        for number, name in enumerate(part.table.column_names):
            texts.append(repeat(f"{', ' if number else '{'}{json.dumps(name)}: ".encode()))
            texts += self._texts(part.table[name].combine_chunks())
        texts.append(repeat(b"}\n", part.table.num_rows))
        self._file.write(b"".join(chain.from_iterable(zip(*texts, strict=False))))  # what is repeated is not counted
        self._rows += part.table.num_rows

    def finish(self) -> tuple[FormatFile, ...]:
        return (self._file.record(self._rows),)

    def _texts(self, column: pa.Array) -> list[Iterable[bytes | memoryview]]:
        """Return the JSON text of each value of a column, in several pieces."""
        if column.type in _LISTS_OF_IDS and not column.values.null_count:
            values = self._integers.of(numpy_view(column.values, column.type.value_type.to_pandas_dtype()))
        elif column.type == _LISTS_OF_WEIGHTS:
            values = pc.binary_join_element_wise(pc.cast(column.values, pa.string()), "", ",")
        else:
            return [map(_json_text, column.to_pylist())]
        return [repeat(b"["), _rows_without_last_comma(column, values), repeat(b"]")]


def _json_text(value: Any) -> bytes:
    """Return the JSON of a value; null stands for NaN and infinity, which JSON does not have.

    Example:
        >>> _json_text({"a": [1.5, float("nan")]})
        b'{"a": [1.5, null]}'
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _IntegerTexts:
    """The decimal texts of integers. They are made once and looked up, which is faster than to convert each."""

    def __init__(self) -> None:
        self._first = 0
        self._texts = pa.array([], pa.string())

    def of(self, values: npt.NDArray[Any]) -> pa.StringArray:
        """Return the text of each integer, with a comma after it.

        Example:
            >>> _IntegerTexts().of(np.array([7, -100], np.int32)).to_pylist()
            ['7,', '-100,']
        """
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        if len(self._texts):
            low, high = min(low, self._first), max(high, self._first + len(self._texts) - 1)
        if high - low >= _MOST_TEXTS:
            return pc.binary_join_element_wise(pc.cast(pa.array(values), pa.string()), "", ",")
        if high - low >= len(self._texts):
            self._first, self._texts = low, pa.array([f"{number}," for number in range(low, high + 1)], pa.string())
        return self._texts.take(number_array(values.astype(np.int32) - np.int32(self._first)))


def _rows_without_last_comma(column: pa.ListArray, values: pa.StringArray) -> Iterator[memoryview]:
    """Yield the texts of the values of each row; they follow each other in memory."""
    if not len(values):
        return repeat(memoryview(b""), len(column))
    ends = np.frombuffer(values.buffers()[1], np.int32)[numpy_view(column.offsets, np.int32)].tolist()
    texts = memoryview(values.buffers()[2])
    return (texts[start : max(start, stop - 1)] for start, stop in pairwise(ends))
