"""Directories and files of shards -> where their rows are, read lazily. Works on any Parquet with `input_ids`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.core.error_text import first_line
from sftkit.core.splits import SPLITS, TRAIN, split_from_path
from sftkit.errors import DataError, SourceError
from sftkit.shards.manifest import Manifest, read_manifest
from sftkit.storage.dataset_files import MANIFEST_NAME, require_complete_dataset
from sftkit.storage.files import file_size, file_sizes, file_sizes_recursive
from sftkit.storage.paths import AnyPath, RemotePath, parse_path
from sftkit.storage.retry import error_reason
from sftkit.storage.streams import open_arrow_file


@dataclass(frozen=True)
class ShardSet:
    """The Parquet files of a data set by split, in order, and its manifest where it has one.

    name: what to call it, where that is not its path.
    """

    root: AnyPath
    splits: dict[str, tuple[AnyPath, ...]]
    manifest: Manifest | None
    name: str = ""

    def tables(self, split: str, columns: list[str] | None = None) -> Iterator[tuple[AnyPath, pa.Table]]:
        """Each shard's row groups as Arrow tables, one row group in memory at a time."""
        for path in self.splits.get(split, ()):
            with open_parquet(path) as file:
                for group in range(file.num_row_groups):
                    yield path, file.read_row_group(group, columns=columns)

    def column_names(self, split: str) -> list[str]:
        """Columns of the first shard of a split."""
        paths = self.splits.get(split, ())
        if not paths:
            return []
        with open_parquet(paths[0]) as file:
            return list(file.schema_arrow.names)


def open_shards(location: str, storage_options: Mapping[str, Any] | None = None) -> ShardSet:
    """Find the shards of a directory, or take one Parquet file alone.

    Args:
        location: a local path, or a URL.
        storage_options: of the file systems behind URLs, as in a config.

    Raises:
        SourceError: nothing is there, or nothing that is Parquet.
        DataError: shards that the manifest names are missing; the others alone are another data set.
        OutputError: there is a manifest that cannot be read.
    """
    try:
        return _open_shards(parse_path(location, storage_options), location)
    except OSError as error:
        raise SourceError(f"{location}: cannot be read: {error_reason(error)}") from None


def _open_shards(root: AnyPath, location: str) -> ShardSet:
    if file_size(root) >= 0:
        return _one_file(root, location)
    if isinstance(root, Path) and not root.is_dir():
        raise SourceError(f"{location}: no such directory or Parquet file")
    manifest = read_manifest(root)
    if manifest is not None:
        splits = {name: tuple(root / shard.file for shard in split.shards) for name, split in manifest.splits.items()}
        if not any(splits.values()):
            raise SourceError(f"{location}: the manifest names no shards; make the data set anew")
        _check_names(root, [path for paths in splits.values() for path in paths])
        return ShardSet(root, splits, manifest, location)
    require_complete_dataset(root)
    names = [name for name in _names_below(root) if name.endswith(".parquet") and not _hidden(name)]
    if not names:
        raise SourceError(f"{location}: no Parquet files in this directory")
    found: dict[str, tuple[AnyPath, ...]] = {}
    for name in names:
        split = split_from_path(name) or TRAIN
        found[split] = (*found.get(split, ()), root / name)
    return ShardSet(root, {split: found[split] for split in SPLITS if split in found}, None, location)


def open_parquet(path: AnyPath) -> pq.ParquetFile:
    """A Parquet file, opened for reading; the columns that are read of a remote one are fetched together.

    Raises:
        SourceError: it cannot be opened, or is not Parquet.
    """
    try:
        file = pq.ParquetFile(open_arrow_file(path), pre_buffer=isinstance(path, RemotePath))
        names = file.schema_arrow.names
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise SourceError(f"{path}: has two columns {twice!r}; a column's name may stand once")
    return file


def _check_names(root: AnyPath, paths: list[AnyPath]) -> None:
    """Raise `DataError` where files that a manifest names are not there, or not beside it."""
    outside = next((path for path in paths if path != root / path.name), None)
    if outside is not None:
        raise DataError(f"{root / MANIFEST_NAME}: names {outside}, which is no file beside it")
    there = file_sizes(root)
    missing = [path for path in paths if path.name not in there]
    if missing:
        more = f", and {len(missing) - 1} more shards are missing" if len(missing) > 1 else ""
        raise DataError(
            f"{missing[0]}: named in the manifest, but not there{more}; copy the data set again, or make it anew"
        )


def _one_file(path: AnyPath, location: str) -> ShardSet:
    """A file on its own; when it is a shard of the data set it stands in, with that one's manifest."""
    manifest = read_manifest(path.parent)
    for split, info in manifest.splits.items() if manifest is not None else ():
        if any(shard.file == path.name for shard in info.shards):
            return ShardSet(path, {split: (path,)}, manifest, location)
    return ShardSet(path, {TRAIN: (path,)}, None, location)


def _names_below(root: AnyPath) -> list[str]:
    """Files in a folder and in those in it, relative to it, in order."""
    if isinstance(root, RemotePath):
        return list(file_sizes_recursive(root))
    return [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.parquet"))]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
