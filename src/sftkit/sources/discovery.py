"""`data_paths` -> source files: files, directories, globs, URLs, bundled samples, Hub ids."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from sftkit.config.schema import DatasetConfig
from sftkit.core.splits import TRAIN, split_from_path
from sftkit.errors import SourceError
from sftkit.sample import sample_path
from sftkit.sources import hub
from sftkit.sources.byte_streams import open_bytes
from sftkit.sources.format_registry import BUILDERS, JSON, JSON_ARRAY, format_from_name, known_extensions
from sftkit.sources.source_file import ReadLimits, SourceFile
from sftkit.storage.dataset_files import MANIFEST_NAME, QUARANTINE_NAME, require_complete_dataset
from sftkit.storage.files import read_bytes
from sftkit.storage.paths import AnyPath, RemotePath, filesystem_for, filesystem_options, is_url
from sftkit.storage.retry import error_reason, with_retries

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$|^[A-Za-z0-9][\w-]*$")
_STATE = "state.json"
_ALSO = {"json": "jsonl", "csv": "tsv"}  # what a builder reads besides, where the ending says so


def find_source_files(
    dataset: DatasetConfig, limits: ReadLimits | None = None, storage_options: Mapping[str, Any] | None = None
) -> list[SourceFile]:
    """The files of a data set, in the order of its `data_paths` (a directory's or glob's by name).

    Args:
        dataset: what is looked for.
        limits: what may be read of each file.
        storage_options: of the file systems behind URLs, as in a config; those of the data set itself come before them.

    Raises:
        SourceError: a path leads to nothing, or to nothing that can be read as rows.
    """
    files = [file for path in dataset.data_paths for file in _find_readable(path, dataset, storage_options or {})]
    filled = [file for file in files if file.size]
    if not filled:
        raise SourceError(f"{dataset.data_paths[0]}: the file is empty" if files else f"{dataset.name}: no data paths")
    return [_with_json_kind(replace(file, limits=limits or ReadLimits())) for file in filled]


def _find_readable(path: str, dataset: DatasetConfig, storage_options: Mapping[str, Any]) -> list[SourceFile]:
    try:
        if is_url(path):
            options = {**filesystem_options(path, storage_options), **filesystem_options(path, dataset.storage_options)}
            return _find_url(RemotePath(path, options), dataset)
        return _find(path, dataset)
    except OSError as error:  # a folder on the way may not be looked into
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None


def _find(path: str, dataset: DatasetConfig) -> list[SourceFile]:
    local = Path(sample_path(path)).expanduser()
    if dataset.builder is not None and dataset.builder not in BUILDERS:
        return hub.find_hub_files(dataset, str(local), builder=dataset.builder)
    require_complete_dataset(local)
    if _is_repository(local):
        return hub.find_hub_files(dataset, str(local))
    if local.is_dir():
        return _in_directory(local, dataset)
    if local.exists() and not local.is_file():
        raise SourceError(f"{path}: is neither a file nor a directory")
    if local.exists():
        return [_local_file(local, dataset)]
    if glob.has_magic(path):
        # Path.glob wants a root and a relative pattern; what the user wrote is neither
        found = sorted(Path(name) for name in glob.glob(str(local), recursive=True))  # noqa: PTH207
        files = [_local_file(file, dataset) for file in found if file.is_file()]
        if not files:
            raise SourceError(f"{path}: no file matches this pattern")
        return files
    if _HUB_ID.match(path) and format_from_name(path)[0] is None:
        return hub.find_hub_files(dataset, path)
    raise SourceError(f"{path}: no such file or directory")


def _local_file(path: Path, dataset: DatasetConfig) -> SourceFile:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    return _source_file(str(path), size, dataset)


def _source_file(path: str, size: int, dataset: DatasetConfig) -> SourceFile:
    kind, compression = format_from_name(path)
    if dataset.builder is not None and dataset.builder in BUILDERS:
        # `builder: json` says nothing against .jsonl, nor `csv` against .tsv: the ending knows better.
        own = BUILDERS[dataset.builder]
        kind = kind if kind in (own, _ALSO.get(dataset.builder)) else own
    if kind is None:
        raise SourceError(f"{path}: unknown kind of file; known endings are {known_extensions()} (or give `builder`)")
    return SourceFile(dataset.name, path, kind, compression, size)


def _in_directory(directory: Path, dataset: DatasetConfig) -> list[SourceFile]:
    told = _told_by(directory, [path.name for path in directory.iterdir() if path.is_file()], dataset)
    if told is not None:
        names = told
    else:
        inside = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
        names = _chosen(inside, dataset)
    if not names:
        raise _nothing_in(str(directory), dataset)
    return [_local_file(directory / name, dataset) for name in names]


def _told_by(directory: AnyPath, there: Sequence[str], dataset: DatasetConfig) -> list[str] | None:
    """The data files that a directory lists itself, of the names that are there; None where it does not.

    Raises:
        SourceError: a file that it lists is missing.
    """
    if _STATE in there:  # datasets.save_to_disk
        return _listed(directory / _STATE, lambda content: [entry["filename"] for entry in content["_data_files"]])
    if MANIFEST_NAME not in there or b'"fingerprint"' not in read_bytes(directory / MANIFEST_NAME):
        return None
    wanted = split_from_path(dataset.dataset_split_name or TRAIN) or dataset.dataset_split_name
    names = _listed(
        directory / MANIFEST_NAME,
        lambda content: [shard["file"] for shard in content["splits"].get(wanted, {}).get("shards", [])],
    )
    missing = next((name for name in names if name not in there), None)
    if missing is not None:
        raise SourceError(f"{directory / missing}: named in {directory / MANIFEST_NAME}, but not there; make it anew")
    return names


def _listed(path: AnyPath, names_in: Callable[[Any], list[str]]) -> list[str]:
    """Names of files beside a file of JSON that lists them; only beside it, whatever they say."""
    try:
        return [PurePosixPath(name).name for name in names_in(json.loads(read_bytes(path)))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SourceError(f"{path}: does not list the files of the data set as it should") from None


def _nothing_in(directory: str, dataset: DatasetConfig) -> SourceError:
    split = f" of split {dataset.dataset_split_name!r}" if dataset.dataset_split_name else ""
    return SourceError(f"{directory}: no data files{split} in this directory; known endings are {known_extensions()}")


def _chosen(names: Sequence[str], dataset: DatasetConfig) -> list[str]:
    """The data files among a directory's files, by name; where names tell splits, those of the split asked for."""
    data = sorted((name for name in names if _is_data(name, dataset)), key=lambda name: name.split("/"))
    if MANIFEST_NAME in names or len({split_from_path(name) for name in data} - {None}) > 1:
        wanted = dataset.dataset_split_name or TRAIN
        return [name for name in data if split_from_path(name) == (split_from_path(wanted) or wanted)]
    return data


def _is_data(name: str, dataset: DatasetConfig) -> bool:
    """Hidden files, markers like _SUCCESS, what describes data and what `datasets` caches beside it are no data."""
    path = PurePosixPath(name)
    if any(part.startswith((".", "_")) for part in path.parts):
        return False
    if path.name in _METADATA_FILES or path.match("cache-*.arrow"):
        return False
    return dataset.builder is not None or format_from_name(name)[0] is not None


_METADATA_FILES = frozenset({MANIFEST_NAME, "dataset_info.json", "dataset_dict.json", _STATE, QUARANTINE_NAME})


def _is_repository(path: Path) -> bool:
    """Whether a directory is laid out as a Hub data set: a card that says which files belong to which split."""
    card = path / "README.md"
    if not card.is_file() or (path / MANIFEST_NAME).is_file():
        return False
    try:
        head = card.read_text(encoding="utf-8", errors="replace")[:100_000]
    except OSError:
        return False
    return head.startswith("---") and ("\nconfigs:" in head or "\ndataset_info:" in head)


def _find_url(place: RemotePath, dataset: DatasetConfig) -> list[SourceFile]:
    try:
        sizes = with_retries(place, lambda: _remote_files(place, dataset))
    except FileNotFoundError:
        raise SourceError(f"{place}: no such file or directory") from None
    except OSError as error:
        raise SourceError(f"{place}: cannot be read: {error_reason(error)}") from None
    if not sizes:
        raise SourceError(f"{place}: no data files there")
    return [replace(_source_file(url, size, dataset), options=place.options) for url, size in sizes]


def _remote_files(place: RemotePath, dataset: DatasetConfig) -> list[tuple[str, int]]:
    """URLs and sizes in bytes of the data files that a URL stands for."""
    system, inner = filesystem_for(place)
    system.invalidate_cache()
    if glob.has_magic(inner) and not system.isfile(inner):
        found = system.glob(inner, detail=True)
        names = sorted(name for name, info in found.items() if info["type"] == "file")
    elif system.isdir(inner):
        root = inner.rstrip("/") + "/"
        found = system.find(inner, detail=True)
        there = [name.removeprefix(root) for name in found]
        require_complete_dataset(place)
        told = _told_by(place, there, dataset)
        names = [root + name for name in (_chosen(there, dataset) if told is None else told)]
        if not names:
            raise _nothing_in(place.url, dataset)
    else:
        found = {inner: system.info(inner)}
        names = [inner]
    return [(str(system.unstrip_protocol(name)), int(found[name]["size"] or 0)) for name in names]


def _with_json_kind(file: SourceFile) -> SourceFile:
    """`.json` may hold an array or one object a line; its first character tells."""
    if file.format != JSON:
        return file
    with open_bytes(file) as stream:
        start = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return replace(file, format=JSON_ARRAY if start.startswith(b"[") else "jsonl")
