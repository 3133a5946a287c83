"""Finding the source files of a data set: files, directories, globs, URLs, the bundled sample and Hub ids."""

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
from sftkit.sources.byte_streams import open_bytes, read_available
from sftkit.sources.decompression import DamagedDataError
from sftkit.sources.format_registry import (
    JSON,
    JSON_ARRAY,
    JSON_LINES,
    format_from_name,
    is_format,
    known_extensions,
)
from sftkit.sources.hub import find_hub_files
from sftkit.sources.source_file import ReadLimits, SourceFile
from sftkit.storage.dataset_files import MANIFEST_NAME, QUARANTINE_NAME, require_complete_dataset
from sftkit.storage.files import read_bytes
from sftkit.storage.paths import AnyPath, RemotePath, filesystem_for, filesystem_options, is_url
from sftkit.storage.retry import error_reason, with_retries

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$|^[A-Za-z0-9][\w-]*$")
_STATE = "state.json"
_METADATA_FILES = frozenset({MANIFEST_NAME, "dataset_info.json", "dataset_dict.json", _STATE, QUARANTINE_NAME})
_RELATED_FORMATS = {"json": JSON_LINES, "csv": "tsv"}
"""Formats that a `builder` does not override when the extension implies them."""


def find_source_files(
    dataset: DatasetConfig, limits: ReadLimits | None = None, storage_options: Mapping[str, Any] | None = None
) -> list[SourceFile]:
    """Find the files of a data set, in the order of its `data_paths`; those of a directory or glob are sorted by name.

    Args:
        dataset: The data set.
        limits: Limits on reading each file.
        storage_options: fsspec options of the run. Those of the data set take precedence.

    Raises:
        SourceError: A path does not exist or has no files with rows.
    """
    files = [file for path in dataset.data_paths for file in _find_path(path, dataset, storage_options or {})]
    filled = [file for file in files if file.size]
    if not filled:
        raise SourceError(f"{dataset.data_paths[0]}: the file is empty" if files else f"{dataset.name}: no data paths")
    return [_with_json_kind(replace(file, limits=limits or ReadLimits())) for file in filled]


def _find_path(path: str, dataset: DatasetConfig, storage_options: Mapping[str, Any]) -> list[SourceFile]:
    try:
        if is_url(path):
            options = {**filesystem_options(path, storage_options), **filesystem_options(path, dataset.storage_options)}
            return _find_url(RemotePath(path, options), dataset)
        return _find_local(path, dataset)
    except OSError as error:  # such as a folder without read permission
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None


def _find_local(path: str, dataset: DatasetConfig) -> list[SourceFile]:
    local = Path(sample_path(path)).expanduser()
    if dataset.builder is not None and not is_format(dataset.builder):
        return find_hub_files(dataset, str(local), builder=dataset.builder)
    require_complete_dataset(local)
    if _is_repository(local):
        return find_hub_files(dataset, str(local))
    if local.is_dir():
        return _find_in_directory(local, dataset)
    if local.exists() and not local.is_file():
        raise SourceError(f"{path}: is neither a file nor a directory")
    if local.exists():
        return [_local_file(local, dataset)]
    if glob.has_magic(path):
        # Path.glob takes a root and a relative pattern, which would have to be split off here.
        found = sorted(Path(name) for name in glob.glob(str(local), recursive=True))  # noqa: PTH207
        files = [_local_file(file, dataset) for file in found if file.is_file()]
        if not files:
            raise SourceError(f"{path}: no file matches this pattern")
        return files
    if _HUB_ID.match(path) and format_from_name(path)[0] is None:
        return find_hub_files(dataset, path)
    raise SourceError(f"{path}: no such file or directory")


def _local_file(path: Path, dataset: DatasetConfig) -> SourceFile:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    return _source_file(str(path), size, dataset)


def _source_file(path: str, size: int, dataset: DatasetConfig) -> SourceFile:
    kind, compression = format_from_name(path)
    builder = dataset.builder
    if builder is not None and is_format(builder) and kind not in (builder, _RELATED_FORMATS.get(builder)):
        kind = builder
    if kind is None:
        raise SourceError(f"{path}: unknown kind of file; known extensions are {known_extensions()} (or set `builder`)")
    return SourceFile(dataset.name, path, kind, compression, size)


def _find_in_directory(directory: Path, dataset: DatasetConfig) -> list[SourceFile]:
    names = _listed_files(directory, [path.name for path in directory.iterdir() if path.is_file()], dataset)
    if names is None:
        inside = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
        names = _select_data_files(inside, dataset)
    if not names:
        raise _no_files_error(str(directory), dataset)
    return [_local_file(directory / name, dataset) for name in names]


def _listed_files(directory: AnyPath, present: Sequence[str], dataset: DatasetConfig) -> list[str] | None:
    """Return the data files that a directory lists itself, in `state.json` or a manifest; None if it has neither.

    Args:
        directory: The directory.
        present: Names of the files in it.
        dataset: The data set, which names the split to read.

    Raises:
        SourceError: A listed file is missing.
    """
    if _STATE in present:  # written by `Dataset.save_to_disk`
        return _read_names(directory / _STATE, lambda content: [entry["filename"] for entry in content["_data_files"]])
    if MANIFEST_NAME not in present or b'"fingerprint"' not in read_bytes(directory / MANIFEST_NAME):
        return None
    split = split_from_path(dataset.dataset_split_name or TRAIN) or dataset.dataset_split_name
    names = _read_names(
        directory / MANIFEST_NAME,
        lambda content: [shard["file"] for shard in content["splits"].get(split, {}).get("shards", [])],
    )
    missing = next((name for name in names if name not in present), None)
    if missing is not None:
        raise SourceError(
            f"{directory / missing}: is missing, but listed in {directory / MANIFEST_NAME}; run preprocess again"
        )
    return names


def _read_names(path: AnyPath, names_in: Callable[[Any], list[str]]) -> list[str]:
    """Read the file names that a JSON file lists. Folders in them are ignored: the files are next to the JSON file."""
    try:
        return [PurePosixPath(name).name for name in names_in(json.loads(read_bytes(path)))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SourceError(f"{path}: cannot be read as a list of the files of a data set") from None


def _no_files_error(directory: str, dataset: DatasetConfig) -> SourceError:
    split = f" of split {dataset.dataset_split_name!r}" if dataset.dataset_split_name else ""
    return SourceError(
        f"{directory}: no data files{split} in this directory; known extensions are {known_extensions()}"
    )


def _select_data_files(names: Sequence[str], dataset: DatasetConfig) -> list[str]:
    """Return the data files of a directory, by name; only those of the requested split if the names tell splits."""
    data = sorted((name for name in names if _is_data(name, dataset)), key=lambda name: name.split("/"))
    if MANIFEST_NAME in names or len({split_from_path(name) for name in data} - {None}) > 1:
        split = dataset.dataset_split_name or TRAIN
        return [name for name in data if split_from_path(name) == (split_from_path(split) or split)]
    return data


def _is_data(name: str, dataset: DatasetConfig) -> bool:
    """Exclude hidden files, markers such as _SUCCESS, metadata and cache files of `datasets`."""
    path = PurePosixPath(name)
    if any(part.startswith((".", "_")) for part in path.parts):
        return False
    if path.name in _METADATA_FILES or path.match("cache-*.arrow"):
        return False
    return dataset.builder is not None or format_from_name(name)[0] is not None


def _is_repository(path: Path) -> bool:
    """Whether a directory has the layout of a Hub data set: a card that assigns files to splits."""
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
    """Return URLs and sizes in bytes of the data files at a URL."""
    system, inner = filesystem_for(place)
    system.invalidate_cache()
    if glob.has_magic(inner) and not system.isfile(inner):
        found = system.glob(inner, detail=True)
        names = sorted(name for name, info in found.items() if info["type"] == "file")
    elif system.isdir(inner):
        root = inner.rstrip("/") + "/"
        found = system.find(inner, detail=True)
        present = [name.removeprefix(root) for name in found]
        require_complete_dataset(place)
        listed = _listed_files(place, present, dataset)
        names = [root + name for name in (_select_data_files(present, dataset) if listed is None else listed)]
        if not names:
            raise _no_files_error(place.url, dataset)
    else:
        found = {inner: system.info(inner)}
        names = [inner]
    return [(str(system.unstrip_protocol(name)), int(found[name]["size"] or 0)) for name in names]


def _with_json_kind(file: SourceFile) -> SourceFile:
    """Replace the format `json` by that of an array or of lines, according to the first character of the file."""
    if file.format != JSON:
        return file
    with open_bytes(file) as stream:
        try:
            start = read_available(stream, 4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        except DamagedDataError:
            start = b""
    return replace(file, format=JSON_ARRAY if start.startswith(b"[") else JSON_LINES)
