"""A Parquet file of a format while it is written."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.shards.manifest import FormatFile
from sftkit.storage.files import atomic_replace, make_directory, sha256_of_file
from sftkit.storage.paths import AnyPath


class ParquetOutput:
    """A Parquet file that is being written."""

    def __init__(self, name: str, path: Path, sink: pa.OSFile, writer: pq.ParquetWriter) -> None:
        self.name = name
        self.path = path
        """Where it is until it is complete."""
        self.rows = 0
        self._sink, self._writer = sink, writer

    def write(self, table: pa.Table, row_group_rows: int) -> None:
        """Append rows, in row groups of so many."""
        self._writer.write_table(table, row_group_size=row_group_rows)
        self.rows += table.num_rows

    def finish(self) -> FormatFile:
        """Close the file, and describe it."""
        self._writer.close()
        self._sink.close()
        return FormatFile(self.name, self.path.stat().st_size, sha256_of_file(self.path), self.rows)


@contextmanager
def parquet_output(root: AnyPath, name: str, schema: pa.Schema, **options: Any) -> Iterator[ParquetOutput]:
    """Create a Parquet file below a directory; it gets its name when the block ends without an exception.

    Files are compressed with zstd.

    Args:
        root: the directory.
        name: relative to it.
        schema: of the tables that are written.
        options: more arguments of `pyarrow.parquet.ParquetWriter`.

    Raises:
        OSError: it cannot be written.
    """
    make_directory((root / name).parent)
    with (
        atomic_replace(root / name, uuid.uuid4().hex[:8]) as temporary,
        pa.OSFile(os.fsencode(temporary), "w") as sink,
        pq.ParquetWriter(sink, schema, compression="zstd", write_statistics=False, **options) as writer,
    ):
        yield ParquetOutput(name, temporary, sink, writer)
