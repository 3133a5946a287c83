"""The byte offset of each row in the file of a staged unit, so that single rows can be read without the others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.rows import Offsets
from sftkit.shards.arrow_arrays import numpy_view

_TOKEN_BYTES = 4  # of ids, and of loss weights

RowLengths = npt.NDArray[Any]
"""Values of each row in one column: tokens (int32) or bytes of text (int64), shape (rows,)."""


@dataclass(frozen=True)
class RowIndex:
    """Where the rows of a staged unit lie in its file, column by column.

    Within a record batch the values of a column are contiguous, so the offset of a row follows from the start of the
    batch and the lengths of the rows before it.
    """

    batch_rows: Offsets
    """Rows of each record batch, shape (batches,)."""
    batch_starts: Mapping[str, Offsets]
    """By column: byte offset in the file of the values of each record batch, shape (batches,)."""
    lengths: Mapping[str, RowLengths]
    """By column: the length of each row. Columns with equal lengths share one array."""
    value_bytes: Mapping[str, int]
    """By column: bytes of one value (4 for a token, 1 for text)."""


def build_row_index(path: Path, columns: Sequence[str]) -> RowIndex:
    """Index some columns of a local file of staged rows.

    Args:
        path: the Arrow file.
        columns: names of columns of tokens (list<int32>, list<float>) or text (large_string).

    Raises:
        OSError, pa.ArrowException: the file cannot be read.
    """
    batch_rows: list[int] = []
    starts: dict[str, list[int]] = {name: [] for name in columns}
    lengths: dict[str, list[RowLengths]] = {name: [] for name in columns}
    value_bytes: dict[str, int] = dict.fromkeys(columns, _TOKEN_BYTES)
    with pa.memory_map(os.fsencode(path)) as source:
        base = source.read_buffer().address
        source.seek(0)
        file = pa.ipc.open_file(source)
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            if not batch.num_rows:
                continue
            batch_rows.append(batch.num_rows)
            for name in columns:
                column = batch.column(name)
                if pa.types.is_list(column.type):
                    offsets, values = numpy_view(column.offsets, np.int32), column.values
                    value_bytes[name] = _TOKEN_BYTES
                    buffer, first = values.buffers()[1], values.offset * _TOKEN_BYTES
                else:
                    buffer, first, value_bytes[name] = column.buffers()[2], 0, 1
                    offsets = np.frombuffer(column.buffers()[1], np.int64)[: batch.num_rows + 1]
                starts[name].append(buffer.address - base + first if buffer is not None else 0)
                lengths[name].append(np.diff(offsets))
    shared: dict[str, RowLengths] = {}
    for name, parts in lengths.items():
        own = np.concatenate([np.zeros(0, np.int32), *parts])
        shared[name] = next((other for other in shared.values() if np.array_equal(other, own)), own)
    return RowIndex(
        batch_rows=np.array(batch_rows, np.int64),
        batch_starts={name: np.array(offsets, np.int64) for name, offsets in starts.items()},
        lengths=shared,
        value_bytes=value_bytes,
    )
