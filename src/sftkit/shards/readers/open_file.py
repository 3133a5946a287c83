"""Opens a file of rows in the format that its content has."""

from __future__ import annotations

from sftkit.shards.readers.parquet_file import ParquetRowFile
from sftkit.shards.readers.row_file import RowFile
from sftkit.storage.paths import AnyPath


def open_shard_file(path: AnyPath) -> RowFile:
    """Open a file of rows for reading.

    Raises:
        SourceError: it cannot be opened, or has none of the formats that are read.
    """
    return ParquetRowFile(path)
