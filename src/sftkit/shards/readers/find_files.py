"""Finds the files of rows in a folder, whichever tool wrote it.

Names in indexes of others lead to files below the folder of the index, or are an error: an index may be a stranger's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sftkit.core.splits import SPLITS, TRAIN, VALIDATION, splits_from_path
from sftkit.errors import DataError, SourceError
from sftkit.shards.readers.indexed_file import INDEX_SUFFIX, indexed_names
from sftkit.shards.readers.numpy_files.array_set import ARRAY_SUFFIX, set_names
from sftkit.shards.readers.open_file import FORMATS
from sftkit.storage.dataset_files import ROW_LIST_NAMES
from sftkit.storage.files import file_size, file_sizes_recursive, read_bytes
from sftkit.storage.paths import AnyPath, RemotePath
from sftkit.storage.retry import error_reason

Splits = dict[str, tuple[AnyPath, ...]]
"""The files of each split, in row order."""

PARQUET_SUFFIX = ".parquet"
MDS_INDEX = "index.json"

_DATASET_DICT = "dataset_dict.json"
_DATASET_STATE = "state.json"
_SUFFIXES = (".arrow", INDEX_SUFFIX, ARRAY_SUFFIX, ".jsonl")
_PLAIN_PATH = re.compile(r"[\w.@=+ -]+(?:/[\w.@=+ -]+)*")


def find_shard_files(root: AnyPath, location: str) -> Splits:
    """Find the files of rows below a folder without a manifest, by split.

    Data sets that `datasets` saved and MDS folders have lists of their files. Other files are taken by their suffix:
    Parquet, or else the only other kind that is there. A file belongs to the split that its path names.

    Args:
        root: the folder.
        location: what the user calls it.

    Raises:
        SourceError: it has no files that are read, or several kinds of them, or a list that cannot be read.
        DataError: a list names a file that is missing, has another size, or is not below its folder.
        OSError: the folder cannot be read.
    """
    if file_size(root / _DATASET_DICT) >= 0:
        return _dataset_dict(root)
    if file_size(root / _DATASET_STATE) >= 0:
        return {TRAIN: tuple(_dataset_files(root))}
    if file_size(root / MDS_INDEX) >= 0 and _is_mds(root):
        return {TRAIN: mds_files(root)}
    names = [name for name in _names_below(root) if not _is_hidden(name) and name not in ROW_LIST_NAMES]
    parquet = [name for name in names if name.endswith(PARQUET_SUFFIX)]
    if parquet:
        return _by_split([(name, root / name) for name in parquet])
    folders = [name.rpartition("/")[0] for name in names if name.endswith(f"/{_DATASET_STATE}")]
    if len(folders) > 1:
        raise SourceError(f"{location}: holds {len(folders)} data sets; name one of them: {', '.join(folders[:3])}")
    if folders:
        return {TRAIN: tuple(_dataset_files(root / folders[0]))}
    indexed = [name.rpartition("/")[0] for name in names if name.endswith(f"/{MDS_INDEX}")]
    indexed = [name for name in indexed if _is_mds(root / name)]
    if indexed:
        return _by_split([(f"{name}/", path) for name in indexed for path in mds_files(root / name)])
    found = {suffix: [name for name in names if name.endswith(suffix)] for suffix in _SUFFIXES}
    kinds = [suffix for suffix, of_kind in found.items() if of_kind]
    if len(kinds) > 1:
        raise SourceError(f"{location}: holds {' and '.join(kinds)} files; name one of them")
    if not kinds:
        raise SourceError(f"{location}: no files of shards in this directory; read are {FORMATS}")
    choose = {INDEX_SUFFIX: indexed_names, ARRAY_SUFFIX: set_names}.get(kinds[0], list)
    chosen = choose(found[kinds[0]])
    return _by_split([(name, root / name) for name in chosen])


def mds_files(folder: AnyPath) -> tuple[AnyPath, ...]:
    """Return the files that the index of an MDS folder lists. Raises as `find_shard_files`."""
    index = folder / MDS_INDEX
    shards = _read_json(index).get("shards")
    if not isinstance(shards, list) or not shards:
        raise SourceError(f"{index}: is no index of MDS: it lists no shards; copy the data set again")
    return tuple(_mds_file(index, shard) for shard in shards)


def _mds_file(index: AnyPath, shard: Any) -> AnyPath:
    """Return one file of an index, decompressed if it is there so."""
    if not isinstance(shard, dict) or shard.get("format") != "mds":
        kind = shard.get("format") if isinstance(shard, dict) else None
        raise SourceError(f"{index}: lists a shard of format {kind!r}; only MDS is read")
    listed = [part for part in (shard.get("raw_data"), shard.get("zip_data")) if isinstance(part, dict)]
    for part in listed:
        path = _listed_file(index, part.get("basename"))
        size = file_size(path)
        if size >= 0 and size != part.get("bytes"):
            raise DataError(f"{path}: has {size:,} bytes, {MDS_INDEX} says {part.get('bytes')}: copy it again")
        if size >= 0:
            return path
    names = " and ".join(str(part.get("basename")) for part in listed) or "a shard without a file"
    raise DataError(f"{index}: lists {names}, which is missing; copy the data set again")


def _dataset_dict(root: AnyPath) -> Splits:
    """Return the files of a `DatasetDict`."""
    index = root / _DATASET_DICT
    splits = _read_json(index).get("splits")
    if not isinstance(splits, list) or not splits:
        raise SourceError(f"{index}: names no splits")
    return {str(name): tuple(_dataset_files(_listed_file(index, name))) for name in splits}


def _dataset_files(folder: AnyPath) -> Iterator[AnyPath]:
    """Yield the Arrow files of a `Dataset`."""
    state = folder / _DATASET_STATE
    files = _read_json(state).get("_data_files")
    if not isinstance(files, list) or not files:
        raise SourceError(f"{state}: names no data files")
    for file in files:
        path = _listed_file(state, file.get("filename") if isinstance(file, dict) else None)
        if file_size(path) < 0:
            raise DataError(f"{path}: is listed in {_DATASET_STATE} but missing; copy the data set again")
        yield path


def _listed_file(index: AnyPath, name: object) -> AnyPath:
    """Return the path of a file or folder that an index lists, which is below the folder of the index."""
    is_plain = isinstance(name, str) and _PLAIN_PATH.fullmatch(name) is not None
    if not isinstance(name, str) or not is_plain or any(not part.strip(".") for part in name.split("/")):
        raise DataError(f"{index}: lists {name!r}, which is no file below its directory")
    return index.parent / name


def _is_mds(folder: AnyPath) -> bool:
    """Whether the index of a folder lists shards; that of LitData, for instance, lists chunks."""
    return "shards" in _read_json(folder / MDS_INDEX)


def _read_json(path: AnyPath) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: cannot be read: {error_reason(error)}") from None
    if not isinstance(found, dict):
        raise SourceError(f"{path}: is no JSON object")
    return found


def _by_split(files: list[tuple[str, AnyPath]]) -> Splits:
    """Assign files, given with their relative names, to the splits that these name."""
    found: Splits = {}
    for name, path in files:
        split = TRAIN if TRAIN in (named := splits_from_path(name)) or not named else VALIDATION
        found[split] = (*found.get(split, ()), path)
    return {split: found[split] for split in SPLITS if split in found}


def _names_below(root: AnyPath) -> list[str]:
    """Return the paths of files in a folder and its subfolders, relative to it, sorted."""
    if isinstance(root, RemotePath):
        return list(file_sizes_recursive(root))
    return [path.relative_to(root).as_posix() for path in sorted(root.rglob("*"))]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
