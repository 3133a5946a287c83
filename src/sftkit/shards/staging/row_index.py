"""Where in the file of a staged unit its rows lie: what it takes to read some of them and nothing else."""

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

_TOKEN_BYTES = 4

RowLengths = npt.NDArray[Any]
"""Of each row in a column: tokens (int32), or bytes of text (int64), shape (rows,)."""


@dataclass(frozen=True)
class RowIndex:
    """The rows of a staged unit, column by column.

    counts: rows of each record batch, shape (batches,). begins: for each column, the byte of the file at which the
    values of each record batch begin, shape (batches,). lengths: for each column, of each row; columns whose rows are
    equally long share an array. widths: bytes of a value in each column.
    """

    batch_rows: Offsets
    batch_starts: Mapping[str, Offsets]
    lengths: Mapping[str, RowLengths]
    value_bytes: Mapping[str, int]


def build_row_index(path: Path, columns: Sequence[str]) -> RowIndex:
    """Look into a local file of staged rows, at some columns of tokens (list<int32>) or text (large_string).

    Raises:
        OSError, pa.ArrowException: it cannot be read.
    """
    counts: list[int] = []
    begins: dict[str, list[int]] = {name: [] for name in columns}
    lengths: dict[str, list[RowLengths]] = {name: [] for name in columns}
    widths: dict[str, int] = dict.fromkeys(columns, _TOKEN_BYTES)
    with pa.memory_map(os.fsencode(path)) as source:
        base = source.read_buffer().address
        source.seek(0)
        file = pa.ipc.open_file(source)
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            if not batch.num_rows:
                continue
            counts.append(batch.num_rows)
            for name in columns:
                column = batch.column(name)
                if pa.types.is_list(column.type):
                    offsets, values, widths[name] = numpy_view(column.offsets, np.int32), column.values, _TOKEN_BYTES
                    buffer, first = values.buffers()[1], values.offset * _TOKEN_BYTES
                else:
                    buffer, first, widths[name] = column.buffers()[2], 0, 1
                    offsets = np.frombuffer(column.buffers()[1], np.int64)[: batch.num_rows + 1]
                begins[name].append(buffer.address - base + first if buffer is not None else 0)
                lengths[name].append(np.diff(offsets))
    found: dict[str, RowLengths] = {}
    for name, parts in lengths.items():
        own = np.concatenate([np.zeros(0, np.int32), *parts])
        found[name] = next((each for each in found.values() if np.array_equal(each, own)), own)
    return RowIndex(
        batch_rows=np.array(counts, np.int64),
        batch_starts={name: np.array(places, np.int64) for name, places in begins.items()},
        lengths=found,
        value_bytes=widths,
    )
