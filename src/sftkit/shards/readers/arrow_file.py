"""Arrow files and streams, such as those that `datasets` writes: axolotl, LLaMA-Factory and others save those."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sftkit.core.error_text import first_line
from sftkit.errors import SourceError
from sftkit.shards.readers.row_file import RowFile
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_arrow_file

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"


class ArrowRowFile(RowFile):
    """A file in Arrow's file or stream format; its groups are its record batches.

    A local file is memory-mapped, so batches are counted, and columns that are not read are skipped, without reading
    them.
    """

    kind = "Arrow"

    def __init__(self, path: AnyPath) -> None:
        """Open a file.

        Raises:
            SourceError: it is not Arrow, or ends too early.
        """
        self.path = path
        try:
            self._source = open_arrow_file(path)
            self._is_file = self._source.read(len(FILE_MAGIC)) == FILE_MAGIC
            self._reader, self._next = self._open(), 0
            schema, rows = self._reader.schema, self._count_rows()
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read as Arrow: {first_line(error).rstrip('.')}") from None
        super().__init__(path, schema, rows)

    def _open(self) -> Any:
        self._source.seek(0)
        return pa.ipc.open_file(self._source) if self._is_file else pa.ipc.open_stream(self._source)

    def _count_rows(self) -> list[int]:
        if self._is_file:
            return [self._reader.get_batch(number).num_rows for number in range(self._reader.num_record_batches)]
        rows = [batch.num_rows for batch in self._reader]
        self._reader = self._open()
        return rows

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        batch = self._batch(number).select(columns)
        batch.validate(full=True)  # offsets of a damaged file may lead outside of its buffers
        return pa.Table.from_batches([batch])

    def _batch(self, number: int) -> pa.RecordBatch:
        if self._is_file:
            return self._reader.get_batch(number)
        if number < self._next:
            self._reader, self._next = self._open(), 0
        while self._next < number:
            self._reader.read_next_batch()
            self._next += 1
        self._next += 1
        return self._reader.read_next_batch()

    def close(self) -> None:
        """Close the file."""
        self._source.close()
