"""Finds truncated, exchanged and unreadable shards by file size and Parquet footer, without reading any rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sftkit.errors import DataError, SourceError
from sftkit.shards.manifest import ShardInfo
from sftkit.shards.readers.open_file import open_shard_file
from sftkit.shards.reading import ShardSet
from sftkit.storage.files import file_size
from sftkit.storage.paths import AnyPath

_THREADS = 8
_MAX_LISTED = 5


@dataclass(frozen=True)
class Footer:
    """What the footer of a Parquet file says."""

    path: AnyPath
    group_rows: tuple[int, ...]
    """Rows of each row group."""
    largest_id: int | None
    """The largest of its `input_ids`, from the statistics of its row groups; None when there are no statistics."""

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.group_rows)


def check_footers(shards: ShardSet) -> list[Footer]:
    """Read the footers of all shards, and compare them and the file sizes with the manifest, if there is one.

    Raises:
        DataError: shards are missing, have another size or number of rows than the manifest says, or are not readable
            as Parquet. The message lists the first of them.
    """
    recorded = {shard.file: shard for shard in shards.manifest.shards} if shards.manifest is not None else {}
    paths = [path for files in shards.splits.values() for path in files]
    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(lambda path: _check_footer(path, recorded.get(path.name)), paths))
    faults = [result for result in results if isinstance(result, str)]
    if faults:
        more = f"; and {len(faults) - _MAX_LISTED} more shards" if len(faults) > _MAX_LISTED else ""
        remedy = "copy the files again"
        if shards.manifest is not None:
            remedy = "copy the data set again, or run preprocess again to rebuild it"
        raise DataError(f"{'; '.join(faults[:_MAX_LISTED])}{more}; {remedy}")
    return [result for result in results if isinstance(result, Footer)]


def read_footer(path: AnyPath) -> Footer:
    """Read the footer of a Parquet file.

    Raises:
        SourceError: the file cannot be opened, or is not Parquet.
    """
    with open_shard_file(path) as file:
        return Footer(path, tuple(file.group_rows), file.largest_id)


def _check_footer(path: AnyPath, recorded: ShardInfo | None) -> Footer | str:
    """Return the footer of a shard, or what is wrong with the shard."""
    size = file_size(path)
    if size < 0:
        return f"{path}: is missing"
    if recorded is not None and size != recorded.bytes:
        cause = "truncated" if size < recorded.bytes else "replaced"
        return f"{path}: has {size} bytes, the manifest says {recorded.bytes}: it was {cause} or renamed"
    try:
        footer = read_footer(path)
    except SourceError as error:
        return str(error).removesuffix(".")
    if recorded is not None and footer.rows != recorded.rows:
        return f"{path}: has {footer.rows} rows, the manifest says {recorded.rows}"
    return footer
