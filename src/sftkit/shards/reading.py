"""Directories and files of shards -> where their rows are, read lazily. Works on any Parquet with `input_ids`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.errors import DataError, SourceError
from sftkit.shards.manifest import MANIFEST_NAME, Manifest, read_manifest
from sftkit.splits import SPLITS, TRAIN, split_of_name


@dataclass(frozen=True)
class ShardSet:
    """The Parquet files of a data set by split, in order, and its manifest where it has one.

    name: what to call it, where that is not its path.
    """

    root: Path
    splits: dict[str, tuple[Path, ...]]
    manifest: Manifest | None
    name: str = ""

    def tables(self, split: str, columns: list[str] | None = None) -> Iterator[tuple[Path, pa.Table]]:
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


def open_shards(location: str) -> ShardSet:
    """Find the shards of a directory, or take one Parquet file alone.

    Raises:
        SourceError: nothing is there, or nothing that is Parquet.
        DataError: shards that the manifest names are missing; the others alone are another data set.
        OutputError: there is a manifest that cannot be read.
    """
    try:
        return _open_shards(Path(location).expanduser(), location)
    except OSError as error:
        raise SourceError(f"{location}: cannot be read: {error.strerror or error}") from None


def _open_shards(root: Path, location: str) -> ShardSet:
    if root.is_file():
        return _one_file(root, location)
    if not root.is_dir():
        raise SourceError(f"{location}: no such directory or Parquet file")
    manifest = read_manifest(root)
    if manifest is not None:
        splits = {name: tuple(root / shard.file for shard in split.shards) for name, split in manifest.splits.items()}
        if not any(splits.values()):
            raise SourceError(f"{location}: the manifest names no shards; make the data set anew")
        _check_names(root, [path for paths in splits.values() for path in paths])
        return ShardSet(root, splits, manifest, location)
    files = sorted(path for path in root.rglob("*.parquet") if not _hidden(path, root))
    if not files:
        raise SourceError(f"{location}: no Parquet files in this directory")
    found: dict[str, tuple[Path, ...]] = {}
    for path in files:
        split = split_of_name(path.relative_to(root).as_posix()) or TRAIN
        found[split] = (*found.get(split, ()), path)
    return ShardSet(root, {split: found[split] for split in SPLITS if split in found}, None, location)


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file, opened for reading.

    Raises:
        SourceError: it cannot be opened, or is not Parquet.
    """
    try:
        file = pq.ParquetFile(pa.memory_map(os.fsencode(path)))  # as bytes, for a name need not be UTF-8
        names = file.schema_arrow.names
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise SourceError(f"{path}: has two columns {twice!r}; a column's name may stand once")
    return file


def _check_names(root: Path, paths: list[Path]) -> None:
    """Raise `DataError` where files that a manifest names are not there, or not beside it."""
    outside = next((path for path in paths if path != root / path.name), None)
    if outside is not None:
        raise DataError(f"{root / MANIFEST_NAME}: names {outside}, which is no file beside it")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more shards are missing" if len(missing) > 1 else ""
        raise DataError(
            f"{missing[0]}: named in the manifest, but not there{more}; copy the data set again, or make it anew"
        )


def _one_file(path: Path, location: str) -> ShardSet:
    """A file on its own; when it is a shard of the data set it stands in, with that one's manifest."""
    manifest = read_manifest(path.parent)
    for split, info in manifest.splits.items() if manifest is not None else ():
        if any(shard.file == path.name for shard in info.shards):
            return ShardSet(path, {split: (path,)}, manifest, location)
    return ShardSet(path, {TRAIN: (path,)}, None, location)


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
