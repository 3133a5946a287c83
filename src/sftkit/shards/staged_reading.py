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

    Of the tokens only their places in the file are held (16 bytes a row and column); they are read from there when
    they are asked for. What is mapped into memory would count as memory of this process, page by page.
    """

    def __init__(self, path: Path, token_columns: tuple[str, ...]) -> None:
        self._path = path
        places: dict[str, list[Offsets]] = {name: [] for name in token_columns}
        lengths: dict[str, list[Offsets]] = {name: [] for name in token_columns}
        with pa.memory_map(str(path)) as source:
            base = source.read_buffer().address
            source.seek(0)
            file = pa.ipc.open_file(source)
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                for name in token_columns:
                    offsets = numbers_of(batch.column(name).offsets, np.int32).astype(np.int64)
                    values = batch.column(name).values
                    start = values.buffers()[1].address - base if len(values) else 0
                    places[name].append(start + (values.offset + offsets[:-1]) * _TOKEN_BYTES)
                    lengths[name].append(np.diff(offsets))
        self._places = {name: np.concatenate(parts) for name, parts in places.items()}
        self._lengths = {name: np.concatenate(parts) for name, parts in lengths.items()}

    def places(self, name: str, rows: Offsets) -> tuple[Offsets, Offsets]:
        """(byte in the file, tokens) of a token column in some rows, shape (rows,) each."""
        return self._places[name][rows], self._lengths[name][rows]

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
        with pa.memory_map(str(self._path)) as source:
            column = pa.ipc.open_file(source).read_all().column(name)
            values: list[str] = column.take(flat_array(rows)).to_pylist()
        return values

    def extras(self, rows: Offsets) -> list[dict[str, Any]]:
        """The retained columns of some rows."""
        return [json.loads(text) for text in self.texts(EXTRAS, rows)]
