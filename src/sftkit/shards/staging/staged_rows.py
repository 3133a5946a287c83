"""Reads all rows of a staged unit in order, one record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sftkit.core.rows import Offsets, Ragged
from sftkit.shards.arrow_arrays import numpy_view
from sftkit.shards.staging.staged_unit import ROW_NUMBER, STAGED_TEXT
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_unmapped_arrow_file


@dataclass(frozen=True)
class StagedBatch:
    """Some rows of a staged unit."""

    record: pa.RecordBatch

    @property
    def numbers(self) -> Offsets:
        """The number of each row within its source when it was staged, shape (rows,)."""
        return numpy_view(self.record.column(ROW_NUMBER), np.int64)

    @property
    def texts(self) -> list[str] | None:
        """The text of each row; None if the rows are tokens."""
        if STAGED_TEXT not in self.record.schema.names:
            return None
        texts: list[str] = self.record.column(STAGED_TEXT).to_pylist()
        return texts

    def tokens(self, name: str) -> Ragged:
        """Return a token column."""
        column = self.record.column(name)
        offsets = numpy_view(column.offsets, np.int32).astype(np.int64)
        values = numpy_view(column.values, np.int32)
        return Ragged(values[offsets[0] : offsets[-1]], offsets - offsets[0])


def read_staged_rows(path: AnyPath) -> Iterator[StagedBatch]:
    """Yield the rows of a staged unit, given the path of its rows.

    Raises:
        OSError: the file cannot be read.
    """
    with open_unmapped_arrow_file(path) as source:
        file = pa.ipc.open_file(source)
        for index in range(file.num_record_batches):
            yield StagedBatch(file.get_batch(index))
