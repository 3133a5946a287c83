"""Finds the shards of a directory or URL, in any format that is read, and reads them lazily."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sftkit.core.splits import TRAIN
from sftkit.errors import DataError, SourceError
from sftkit.shards.format_shards import find_manifest_above, listed_splits
from sftkit.shards.manifest import Manifest, read_manifest
from sftkit.shards.readers.find_files import MDS_INDEX, PARQUET_SUFFIX, find_shard_files
from sftkit.shards.readers.indexed_file import INDEX_SUFFIX
from sftkit.shards.readers.numpy_files.array_set import ids_of_set
from sftkit.shards.readers.open_file import index_of, open_shard_file, reader_of, tokens_of
from sftkit.shards.readers.parquet_file import ParquetRowFile
from sftkit.storage.dataset_files import MANIFEST_NAME, require_complete_dataset
from sftkit.storage.files import file_size, file_sizes
from sftkit.storage.paths import AnyPath, parse_path
from sftkit.storage.retry import error_reason


@dataclass(frozen=True)
class ShardSet:
    """The files of a data set.

    The files come from the manifest, if there is one: a file that it lists and that is missing is an error, and other
    files in the directory are ignored. Without a manifest (shards of another tool), `find_shard_files` finds them.
    Shards of this tool have one row per
    training example or pack, with `input_ids` and `labels` (list<int32>, labels unshifted, -100 where there is no
    loss), `seq_lengths` (list<int32>) in packs, or a text column.
    """

    root: AnyPath
    """The directory, or the file if only one was opened."""
    splits: dict[str, tuple[AnyPath, ...]]
    """Split -> its files, in row order."""
    manifest: Manifest | None
    name: str = ""
    """What to call the data set in output, if not by its path."""

    def tables(self, split: str, columns: list[str] | None = None) -> Iterator[tuple[AnyPath, pa.Table]]:
        """Yield the row groups of a split, each with the path of its file, holding one in memory at a time.

        Packs come with their padding, in the columns that are read.
        """
        for path in self.splits.get(split, ()):
            with open_shard_file(path) as file:
                for table in file.iter_groups(columns):
                    yield path, table

    def column_names(self, split: str) -> list[str]:
        """Return the columns of the first shard of a split."""
        paths = self.splits.get(split, ())
        if not paths:
            return []
        with open_shard_file(paths[0]) as file:
            return list(file.schema.names)


def open_shards(location: str, storage_options: Mapping[str, Any] | None = None) -> ShardSet:
    """Find the shards of a directory, or open a single file.

    Args:
        location: a local path, or a URL; for Megatron's pairs of files, the `.idx` or `.bin` file or their prefix.
        storage_options: options of the file systems behind URLs, as in a config.

    Raises:
        SourceError: nothing is there, or no file that is read.
        DataError: shards that a manifest or an index lists are missing.
        OutputError: there is a manifest that cannot be read.

    Example:
        >>> for path, table in open_shards("shards").tables("train"):  # doctest: +SKIP
        ...     print(path, table.num_rows)
    """
    try:
        return _open_shards(parse_path(location, storage_options), location)
    except OSError as error:
        raise SourceError(f"{location}: cannot be read: {error_reason(error)}") from None


def _open_shards(root: AnyPath, location: str) -> ShardSet:
    if file_size(root) >= 0:
        return _open_file(root, location)
    if isinstance(root, Path) and not root.is_dir():
        if file_size(index_of(root)) < 0:
            raise SourceError(f"{location}: no such directory or file of shards")
        return _open_file(tokens_of(index_of(root)), location)
    manifest = read_manifest(root)
    if manifest is not None:
        splits = {name: tuple(root / shard.file for shard in split.shards) for name, split in manifest.splits.items()}
        if not any(splits.values()) and manifest.formats:
            return ShardSet(root, listed_splits(root, manifest, next(iter(manifest.formats))), manifest, location)
        if not any(splits.values()):
            raise SourceError(f"{location}: the manifest lists no shards; run preprocess again")
        _check_listed_files(root, [path for paths in splits.values() for path in paths])
        return ShardSet(root, splits, manifest, location)
    above = find_manifest_above(root)
    if above is not None:
        directory, manifest, name = above
        return ShardSet(directory, listed_splits(directory, manifest, name), manifest, location)
    require_complete_dataset(root)
    return ShardSet(root, find_shard_files(root, location), None, location)


def _check_listed_files(root: AnyPath, paths: list[AnyPath]) -> None:
    """Raise `DataError` when files that a manifest lists are missing, or are not in its directory."""
    outside = next((path for path in paths if path != root / path.name), None)
    if outside is not None:
        raise DataError(
            f"{root / MANIFEST_NAME}: lists {outside}, which is not a file in its directory; "
            "run preprocess again to rebuild it"
        )
    existing = file_sizes(root)
    missing = [path for path in paths if path.name not in existing]
    if missing:
        more = f", as are {len(missing) - 1} more shards" if len(missing) > 1 else ""
        raise DataError(
            f"{missing[0]}: is listed in the manifest but missing{more}; "
            "copy the data set again, or run preprocess again to rebuild it"
        )


def require_parquet(shards: ShardSet) -> None:
    """Raise `DataError` unless all files of a data set are Parquet, which is what training reads."""
    for path in (path for paths in shards.splits.values() for path in paths):
        reader = reader_of(path)
        if reader is not ParquetRowFile:
            raise DataError(
                f"{path}: is {reader.kind}; training reads Parquet: train on the Parquet shards of these rows (write "
                "them with `sftkit preprocess`)"
            )


def _open_file(path: AnyPath, location: str) -> ShardSet:
    """Open a single file; with the manifest of its directory, if that lists the file as a shard."""
    if path.name == MDS_INDEX:
        return _open_shards(path.parent, location)
    if path.name.endswith(INDEX_SUFFIX):
        path = tokens_of(path)
    path = ids_of_set(path)
    manifest = read_manifest(path.parent)
    for split, info in manifest.splits.items() if manifest is not None else ():
        if any(shard.file == path.name for shard in info.shards):
            return ShardSet(path, {split: (path,)}, manifest, location)
    above = find_manifest_above(path) if not path.name.endswith(PARQUET_SUFFIX) else None
    if above is not None:
        directory, manifest, name = above
        return ShardSet(path, listed_splits(directory, manifest, name), manifest, location)
    return ShardSet(path, {TRAIN: (path,)}, None, location)
