"""Parquet files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.core.error_text import first_line
from sftkit.core.rows import INPUT_IDS
from sftkit.errors import SourceError
from sftkit.shards.readers.row_file import RowFile
from sftkit.storage.paths import AnyPath, RemotePath
from sftkit.storage.streams import open_arrow_file


class ParquetRowFile(RowFile):
    """A Parquet file; its groups are its row groups."""

    kind = "Parquet"

    def __init__(self, path: AnyPath) -> None:
        """Open a file. Raises `SourceError` as `open_parquet`."""
        self._file = open_parquet(path)
        metadata = self._file.metadata
        rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        super().__init__(path, self._file.schema_arrow, rows)

    @property
    def largest_id(self) -> int | None:
        """The largest of its `input_ids` by the statistics of its row groups; None when there are none."""
        return max(_largest_ids(self._file.metadata), default=None)

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        return self._file.read_row_group(number, columns=columns, use_threads=False)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_parquet(path: AnyPath) -> pq.ParquetFile:
    """Open a Parquet file for reading. The columns that are read of a remote file are fetched together.

    Raises:
        SourceError: it cannot be opened, is not Parquet, or has two columns of one name.
    """
    try:
        file = pq.ParquetFile(open_arrow_file(path), pre_buffer=isinstance(path, RemotePath))
        names = file.schema_arrow.names
    except (OSError, pa.ArrowException) as error:
        raw = (
            "" if path.name.endswith(".parquet") else f"; to see what raw rows become, give --training_data_path {path}"
        )
        raise SourceError(f"{path}: cannot be read as Parquet: {first_line(error).rstrip('.')}{raw}") from None
    duplicate = next((name for name, count in Counter(names).items() if count > 1), None)
    if duplicate is not None:
        raise SourceError(f"{path}: has two columns named {duplicate!r}; column names must be unique")
    return file


def _largest_ids(metadata: pq.FileMetaData) -> Iterator[int]:
    """Yield the maximum of `input_ids` in each row group that has statistics."""
    columns = [metadata.schema.column(index).path.split(".")[0] for index in range(metadata.num_columns)]
    if INPUT_IDS not in columns:
        return
    column = columns.index(INPUT_IDS)
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(column).statistics
        if statistics is not None and statistics.has_min_max and isinstance(statistics.max, int):
            yield statistics.max
