"""Parquet shards: the format that sftkit trains on.

Shards are compressed with zstd, a row group for each part that is written, and page dictionaries are used for retained
columns only. The bytes of a shard depend on its rows alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.core.error_text import first_line
from sftkit.errors import DataError
from sftkit.shards.formats.parquet_output import ParquetOutput, parquet_output
from sftkit.shards.manifest import FormatFile, ShardInfo
from sftkit.shards.writing.row_gatherer import GatheredRows, SequenceSelection
from sftkit.shards.writing.shard_format import FormatOptions, ShardFile, ShardFormat, ShardPlace
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.shards.writing.shard_writer import ShardTask, ShardWriter


class ParquetShards(ShardFormat):
    """One Parquet file for each shard, in the directory of the data set itself."""

    registered_as = "parquet"

    @contextmanager
    def open(self, place: ShardPlace, sequences: SequenceSelection) -> Iterator[ShardFile]:
        """As `ShardFormat.open`."""
        # Ids hardly repeat within a page, so a dictionary of them would only cost time.
        with parquet_output(
            place.root,
            f"{place.name}.parquet",
            self.layout.parquet_schema,
            use_dictionary=self.layout.dictionary_columns,
        ) as output:
            yield _ParquetFile(self.layout, output)


class _ParquetFile(ShardFile):
    def __init__(self, layout: ShardLayout, output: ParquetOutput) -> None:
        self._layout, self._output = layout, output

    def write(self, part: GatheredRows) -> None:
        self._output.write(self._layout.parquet_table(part.table), part.table.num_rows)

    def finish(self) -> tuple[FormatFile, ...]:
        """As `ShardFile.finish`.

        Raises:
            DataError: the file cannot be read back.
        """
        file = self._output.finish()
        _check_readable(self._output.path, file.file, self._output.rows, self._layout)
        return (file,)


def _check_readable(path: Path, name: str, rows: int, layout: ShardLayout) -> None:
    """Open a shard as its readers do, before it is published: its footer, its schema, and the first of its rows."""
    try:
        with pa.OSFile(os.fsencode(path)) as source:
            file = pq.ParquetFile(source)
            first = next(file.iter_batches(batch_size=1))
            is_right = file.metadata.num_rows == rows and first.schema.names == layout.parquet_schema.names
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise DataError(
            f"{name}: this shard cannot be read back ({first_line(error)}); convert retained columns with objects and "
            "lists to text"
        ) from None
    if not is_right:
        raise DataError(f"{name}: this shard does not hold what was written; check the disk and run the command again")


def write_shard(layout: ShardLayout, task: ShardTask) -> ShardInfo:
    """Write one Parquet file with a new `ShardWriter`."""
    written = ShardWriter(layout, {ParquetShards.registered_as: ParquetShards(layout, FormatOptions())})(task)
    [file] = written.files[ParquetShards.registered_as]
    return ShardInfo(file.file, written.rows, written.tokens, written.trained_tokens, file.bytes, file.sha256)
