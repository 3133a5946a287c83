"""Staged units as they are gathered into shards: any rows, in any order, without holding the units in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.rows import Ids, Offsets
from sftkit.shards.arrays import flat_array, numbers_of
from sftkit.shards.staging import EXTRAS

_TOKEN_BYTES = 4


class StagedReader:
    """The rows of one staged unit.

    Of the tokens only the offsets of the rows are held (4 bytes a row, where the token columns have the same lengths);
    they are read from the file when they are asked for. What is mapped into memory would count as memory of this
    process, page by page.
    """

    def __init__(self, path: Path, token_columns: tuple[str, ...]) -> None:
        self._path = path
        offsets: dict[str, list[Ids]] = {name: [] for name in token_columns}
        begins: dict[str, list[int]] = {name: [] for name in token_columns}
        counts = []
        with pa.memory_map(os.fsencode(path)) as source:
            base = source.read_buffer().address
            source.seek(0)
            file = pa.ipc.open_file(source)
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                if not batch.num_rows:
                    continue
                counts.append(batch.num_rows)
                for name in token_columns:
                    values = batch.column(name).values
                    start = values.buffers()[1].address - base if len(values) else 0
                    begins[name].append(start + values.offset * _TOKEN_BYTES)
                    offsets[name].append(numbers_of(batch.column(name).offsets, np.int32).copy())
        self._ends = np.cumsum(counts, dtype=np.int64)  # of the record batches, in rows
        self._begins = {name: np.array(parts, np.int64) for name, parts in begins.items()}  # in bytes of the file
        self._offsets: dict[str, Ids] = {}  # within each record batch, in tokens: one more of them than it has rows
        for name, parts in offsets.items():
            own = np.concatenate([np.zeros(0, np.int32), *parts])
            same = (each for each in self._offsets.values() if np.array_equal(each, own))
            self._offsets[name] = next(same, own)

    def places(self, name: str, rows: Offsets) -> tuple[Offsets, Offsets]:
        """(byte in the file, tokens) of a token column in some rows, shape (rows,) each."""
        batches = np.searchsorted(self._ends, rows, side="right")
        offsets, entries = self._offsets[name], rows + batches
        starts = offsets[entries].astype(np.int64)
        return self._begins[name][batches] + starts * _TOKEN_BYTES, offsets[entries + 1] - starts

    def read_tokens(self, runs: Iterable[tuple[int, Ids]]) -> None:
        """Fill arrays with the tokens that lie at a byte of the file, one after the other.

        Raises:
            OSError: they cannot be read.
        """
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            for place, into in runs:
                view = memoryview(into.view(np.uint8).data) if len(into) else memoryview(b"")
                while view:
                    count = os.preadv(descriptor, [view], place)
                    if not count:
                        raise OSError(f"{self._path}: ends too early")
                    view, place = view[count:], place + count
        finally:
            os.close(descriptor)

    def texts(self, name: str, rows: Offsets) -> list[str]:
        """Some rows of the text column."""
        with pa.memory_map(os.fsencode(self._path)) as source:
            column = pa.ipc.open_file(source).read_all().column(name)
            values: list[str] = column.take(flat_array(rows)).to_pylist()
        return values

    def extras(self, rows: Offsets) -> list[dict[str, Any]]:
        """The retained columns of some rows."""
        return [json.loads(text) for text in self.texts(EXTRAS, rows)]
