"""Shards that are cut short, exchanged or broken, found by their sizes and footers before a row of them is read."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.parquet as pq

from sftkit.core.rows import INPUT_IDS
from sftkit.errors import DataError, SourceError
from sftkit.shards.manifest import ShardInfo
from sftkit.shards.reading import ShardSet, open_parquet
from sftkit.storage.files import file_size
from sftkit.storage.paths import AnyPath

_AT_ONCE = 8  # files
_NAMED = 5


@dataclass(frozen=True)
class Footer:
    """What the footer of a Parquet file says.

    largest_id: of its `input_ids`, as far as the statistics of its row groups tell; None where they tell nothing.
    """

    path: AnyPath
    rows: int
    largest_id: int | None


def check_footers(shards: ShardSet) -> list[Footer]:
    """The footers of all shards, once every one of them is what it should be as far as this shows.

    Raises:
        DataError: shards are missing, not as long as the manifest says, not readable as Parquet, or hold another number
            of rows; the first of them are named.
    """
    said = _said(shards)
    paths = [path for files in shards.splits.values() for path in files]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        looked = list(pool.map(lambda path: _look(path, said.get(path.name)), paths))
    faults = [found for found in looked if isinstance(found, str)]
    if faults:
        more = f"; and {len(faults) - _NAMED} more shards" if len(faults) > _NAMED else ""
        raise DataError(f"{'; '.join(faults[:_NAMED])}{more}; copy the data set again, or make it anew")
    return [found for found in looked if isinstance(found, Footer)]


def read_footer(path: AnyPath) -> Footer:
    """What the footer of a Parquet file says.

    Raises:
        SourceError: it cannot be opened, or is not Parquet.
    """
    with open_parquet(path) as file:
        footer = file.metadata
        return Footer(path, footer.num_rows, max(_largest_ids(footer), default=None))


def _look(path: AnyPath, said: ShardInfo | None) -> Footer | str:
    """A shard's footer, or what is wrong with it."""
    size = file_size(path)
    if size < 0:
        return f"{path}: is not there"
    if said is not None and size != said.bytes:
        how = "it is cut short" if size < said.bytes else "it is another file"
        return f"{path}: has {size} bytes where the manifest says {said.bytes}: {how}, or stands under another's name"
    try:
        footer = read_footer(path)
    except SourceError as error:
        return str(error)
    if said is not None and footer.rows != said.rows:
        return f"{path}: holds {footer.rows} rows where the manifest says {said.rows}"
    return footer


def _said(shards: ShardSet) -> dict[str, ShardInfo]:
    if shards.manifest is None:
        return {}
    return {shard.file: shard for shard in shards.manifest.shards}


def _largest_ids(footer: pq.FileMetaData) -> Iterator[int]:
    names = [footer.schema.column(place).path.split(".")[0] for place in range(footer.num_columns)]
    if INPUT_IDS not in names:
        return
    column = names.index(INPUT_IDS)
    for number in range(footer.num_row_groups):
        statistics = footer.row_group(number).column(column).statistics
        if statistics is not None and statistics.has_min_max and isinstance(statistics.max, int):
            yield statistics.max
