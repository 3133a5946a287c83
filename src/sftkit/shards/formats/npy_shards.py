"""Plain arrays of numpy, one for each column, which any loader maps into memory: `numpy.load(file, mmap_mode="r")`.

All rows of a shard are concatenated. `row_offsets` says where each begins, and `seq_offsets` where each sequence of
the packs does (the `cu_seqlens` of the shard). The number of values is known before any is written, so the header of an
array comes first, and the rows of a shard are never in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.core.rows import INPUT_IDS, PADDING, SEQ_LENGTHS, SOURCE
from sftkit.shards.arrow_arrays import numpy_view
from sftkit.shards.formats.npy_header import npy_header
from sftkit.shards.manifest import FormatFile
from sftkit.shards.readers.numpy_files.array_set import ARRAY_SUFFIX, ARRAYS_OF_TOKENS, ROW_OFFSETS, SEQ_OFFSETS
from sftkit.shards.writing.row_gatherer import GatheredRows, SequenceSelection
from sftkit.shards.writing.shard_format import NewFile, ShardFile, ShardFormat, ShardPlace, new_file

_HELD = frozenset({*ARRAYS_OF_TOKENS, SEQ_LENGTHS, PADDING, SOURCE})


class NpyShards(ShardFormat):
    """For each shard, in `npy/`: an array of each column, `row_offsets`, and `seq_offsets` of packs."""

    registered_as = "npy"

    def problem(self) -> str | None:
        """As `ShardFormat.problem`."""
        if self.layout.text_column is None:
            return None
        return f"holds tokens, and the rows are text ({self.layout.text_column!r}); use handlers that tokenize"

    def columns_left_out(self) -> Sequence[str]:
        """As `ShardFormat.columns_left_out`."""
        retained = self.layout.retained.names
        return [name for name in self.layout.schema.names if name in retained or name not in _HELD]

    @contextmanager
    def open(self, place: ShardPlace, sequences: SequenceSelection) -> Iterator[ShardFile]:
        """As `ShardFormat.open`."""
        left_out = self.columns_left_out()
        counts = self._counts(sequences)
        with ExitStack() as opened:

            def array(name: str, dtype: npt.DTypeLike, count: int) -> _Array:
                file = new_file(place.root, f"{self.registered_as}/{place.name}.{name}{ARRAY_SUFFIX}")
                return _Array(opened.enter_context(file), np.dtype(dtype), count)

            columns = {
                field.name: array(field.name, _type_of(field), counts[field.name])
                for field in self.layout.schema
                if field.name not in left_out and field.name != SEQ_LENGTHS
            }
            offsets = {INPUT_IDS: _Offsets(array(ROW_OFFSETS, np.int64, counts[PADDING] + 1))}
            if self.layout.is_packed:
                offsets[SEQ_LENGTHS] = _Offsets(array(SEQ_OFFSETS, np.int64, counts[SEQ_LENGTHS] + 1))
            yield _NpyFiles(columns, offsets)

    def _counts(self, sequences: SequenceSelection) -> dict[str, int]:
        """How many values each column of a shard has."""
        sizes = sequences.row_sizes.astype(np.int64)
        padding = np.zeros_like(sizes) if self.layout.padding is None else self.layout.padding.tokens(sizes)
        tokens = int(sizes.sum() + padding.sum())
        of_sequences = len(sequences) + int(np.count_nonzero(padding))  # the padding of a pack is its last sequence
        return {
            **dict.fromkeys(ARRAYS_OF_TOKENS, tokens),
            SEQ_LENGTHS: of_sequences,
            SOURCE: of_sequences,
            PADDING: len(sizes),
        }


class _NpyFiles(ShardFile):
    """The arrays of columns, and the offsets that the lists of some columns give, by the name of the column."""

    def __init__(self, columns: dict[str, _Array], offsets: dict[str, _Offsets]) -> None:
        self._columns, self._offsets = columns, offsets
        self._rows = 0

    def write(self, part: GatheredRows) -> None:
        for name, array in self._columns.items():
            column = part.table[name].combine_chunks()
            values = column.values if pa.types.is_list(column.type) else column
            array.write(numpy_view(pc.fill_null(values, -1), array.dtype))  # the padding of a pack has no source
        self._offsets[INPUT_IDS].write(np.diff(numpy_view(part.table[INPUT_IDS].combine_chunks().offsets, np.int32)))
        if SEQ_LENGTHS in self._offsets:
            self._offsets[SEQ_LENGTHS].write(numpy_view(part.table[SEQ_LENGTHS].combine_chunks().values, np.int32))
        self._rows += part.table.num_rows

    def finish(self) -> tuple[FormatFile, ...]:
        columns = [array.finish(self._rows if name == INPUT_IDS else None) for name, array in self._columns.items()]
        return (*columns, *(offsets.array.finish(None) for offsets in self._offsets.values()))


class _Array:
    """An array that is being written, and will have so many values."""

    def __init__(self, file: NewFile, dtype: np.dtype[np.generic], count: int) -> None:
        self.dtype = dtype
        self._file = file
        self._file.write(npy_header(dtype.str, count))
        self._size = file.size + count * dtype.itemsize

    def write(self, values: npt.NDArray[np.generic]) -> None:
        self._file.write(values)

    def finish(self, rows: int | None) -> FormatFile:
        assert self._file.size == self._size, "the header says how many values there are"
        return self._file.record(rows)


class _Offsets:
    """An array of offsets, which begins with 0, written from the lengths of lists."""

    def __init__(self, array: _Array) -> None:
        self.array = array
        self._end = 0
        array.write(np.zeros(1, np.int64))

    def write(self, lengths: npt.NDArray[np.int32]) -> None:
        ends = np.cumsum(lengths, dtype=np.int64) + self._end
        self.array.write(ends)
        self._end = int(ends[-1]) if len(ends) else self._end


def _type_of(field: pa.Field) -> np.dtype[Any]:
    """The data type of the values of a column, or of those of its lists."""
    values = field.type.value_type if pa.types.is_list(field.type) else field.type
    dtype: np.dtype[Any] = np.dtype(values.to_pandas_dtype())
    return dtype
