"""Finding the source files of a data set: files, directories, globs, URLs, the bundled sample and Hub ids."""

from __future__ import annotations

import glob
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from sftkit.config.schema import DatasetConfig, ReaderConfig
from sftkit.core.splits import TRAIN, split_of_keyword
from sftkit.errors import SourceError
from sftkit.sample import sample_path
from sftkit.sources.format_registry import (
    JSON,
    JSON_ARRAY,
    JSON_LINES,
    format_from_name,
    is_format,
    known_extensions,
)
from sftkit.sources.hub import find_hub_files
from sftkit.sources.own_files import OwnFiles
from sftkit.sources.reader_options import check_applicable
from sftkit.sources.source_file import ReadLimits, SourceFile
from sftkit.sources.split_selection import check_split_of_file, select_split, split_glob
from sftkit.sources.streams.text_streams import read_head
from sftkit.storage.dataset_files import MANIFEST_NAME, QUARANTINE_NAME, require_complete_dataset
from sftkit.storage.files import read_bytes
from sftkit.storage.paths import AnyPath, RemotePath, filesystem_for, filesystem_options, is_url
from sftkit.storage.retry import error_reason, with_retries

_log = logging.getLogger(__name__)

P = TypeVar("P", Path, RemotePath)

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$|^[A-Za-z0-9][\w-]*$")
_STATE = "state.json"
_METADATA_FILES = frozenset({MANIFEST_NAME, "dataset_info.json", "dataset_dict.json", _STATE, QUARANTINE_NAME})
_RELATED_FORMATS = {"json": JSON_LINES, "csv": "tsv"}
"""Formats that a `builder` does not override when the extension implies them."""


@dataclass(frozen=True)
class FoundFiles:
    """The files of a data set."""

    files: list[SourceFile]
    """The files to read, in order."""
    left_out: list[str] = field(default_factory=list)
    """Paths of data files in the same directories or globs that are not read, because of their split."""


def find_source_files(
    dataset: DatasetConfig, limits: ReadLimits | None = None, storage_options: Mapping[str, Any] | None = None
) -> list[SourceFile]:
    """Return the files that `find_sources` finds to read."""
    return find_sources(dataset, limits, storage_options).files


def find_sources(
    dataset: DatasetConfig, limits: ReadLimits | None = None, storage_options: Mapping[str, Any] | None = None
) -> FoundFiles:
    """Find the files of a data set, in the order of its `data_paths`; those of a directory or glob are sorted by name.

    Args:
        dataset: The data set.
        limits: Limits on reading each file.
        storage_options: fsspec options of the run. Those of the data set take precedence.

    Raises:
        SourceError: A path does not exist or has no files with rows.
    """
    found = [_find_path(path, dataset, storage_options or {}) for path in dataset.data_paths]
    files = [file for each in found for file in each.files]
    filled = [file for file in files if file.size]
    if not filled:
        where = f"{dataset.data_paths[0]}: the file is empty" if files else f"{dataset.name}: no data paths"
        raise SourceError(f"{where}; name a file with rows")
    limits, reader = limits or ReadLimits(), dataset.reader or ReaderConfig()
    read = [_ready_to_scan(replace(file, limits=limits, reader=reader)) for file in filled]
    paths = {file.path for file in files}
    return FoundFiles(read, [path for each in found for path in each.left_out if path not in paths])


def _find_path(path: str, dataset: DatasetConfig, storage_options: Mapping[str, Any]) -> FoundFiles:
    try:
        if is_url(path):
            options = {**filesystem_options(path, storage_options), **filesystem_options(path, dataset.storage_options)}
            return _find_url(RemotePath(path, options), dataset)
        return _find_local(path, dataset)
    except OSError as error:  # such as a folder without read permission
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None


def _find_local(path: str, dataset: DatasetConfig) -> FoundFiles:
    local = Path(sample_path(path)).expanduser()
    if dataset.builder is not None and not is_format(dataset.builder):
        return FoundFiles(find_hub_files(dataset, str(local), builder=dataset.builder))
    require_complete_dataset(local)
    if _is_repository(local):
        of_path = {Path(file.path): file for file in find_hub_files(dataset, str(local))}
        return FoundFiles([of_path[file] for file in _without_own_files(list(of_path), local, path)])
    if local.is_dir():
        return _find_in_directory(local, dataset)
    if local.exists() and not local.is_file():
        raise SourceError(f"{path}: is neither a file nor a directory")
    if local.exists():
        check_split_of_file(path, dataset)
        return FoundFiles([_local_file(local, dataset)])
    if glob.has_magic(path):
        # Path.glob takes a root and a relative pattern, which would have to be split off here.
        found = sorted(Path(name) for name in glob.glob(str(local), recursive=True))  # noqa: PTH207
        files = [file for file in found if file.is_file()]
        if not files:
            raise SourceError(f"{path}: no file matches this pattern")
        files = _without_own_files(files, Path(split_glob(local.as_posix())[0]), path)
        names = _matches_of_split([file.as_posix() for file in files], local.as_posix(), path, dataset)
        return FoundFiles(
            [_local_file(file, dataset) for file in files if file.as_posix() in names],
            [str(file) for file in files if file.as_posix() not in names],
        )
    if _HUB_ID.match(path) and format_from_name(path)[0] is None:
        return FoundFiles(find_hub_files(dataset, path))
    raise SourceError(f"{path}: no such file or directory")


def _matches_of_split(paths: Sequence[str], pattern: str, shown: str, dataset: DatasetConfig) -> frozenset[str]:
    """Return those of the paths that a glob matches that belong to the split of the data set."""
    root, rest = split_glob(pattern)
    names = [path.removeprefix(root) for path in paths]
    return frozenset(root + name for name in select_split(names, dataset, shown, rest))


def _local_file(path: Path, dataset: DatasetConfig) -> SourceFile:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    return _source_file(str(path), size, dataset)


def _source_file(path: str, size: int, dataset: DatasetConfig) -> SourceFile:
    is_web = path.startswith(("http://", "https://"))
    kind, compression = format_from_name(path.partition("?")[0] if is_web else path)
    builder = dataset.builder
    if builder is not None and is_format(builder) and kind not in (builder, _RELATED_FORMATS.get(builder)):
        kind = builder
    if kind is None:
        raise SourceError(f"{path}: unknown kind of file; known extensions are {known_extensions()} (or set `builder`)")
    return SourceFile(dataset.name, path, kind, compression, size)


def _find_in_directory(directory: Path, dataset: DatasetConfig) -> FoundFiles:
    names = _listed_files(directory, [path.name for path in directory.iterdir() if path.is_file()], dataset)
    others: list[str] = []
    if names is None:
        inside = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
        data = [directory / name for name in inside if _is_data(name, dataset)]
        foreign = _without_own_files(data, directory, str(directory))
        names, others = _select_data_files(
            [file.relative_to(directory).as_posix() for file in foreign], dataset, str(directory)
        )
    if not names:
        raise _no_files_error(str(directory), dataset)
    return FoundFiles(
        [_local_file(directory / name, dataset) for name in names], [str(directory / name) for name in others]
    )


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
        _check_saved_split(directory, dataset)
        return _read_names(directory / _STATE, lambda content: [entry["filename"] for entry in content["_data_files"]])
    if MANIFEST_NAME not in present or b'"fingerprint"' not in read_bytes(directory / MANIFEST_NAME):
        return None
    wanted = dataset.dataset_split_name or TRAIN
    split = split_of_keyword(wanted) or wanted
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


def _check_saved_split(directory: AnyPath, dataset: DatasetConfig) -> None:
    wanted = dataset.dataset_split_name
    if wanted in (None, TRAIN):
        return
    [saved] = _read_json(directory / _STATE, lambda content: [content.get("_split")])
    if wanted != saved:
        has = f"is split {saved!r}" if saved else "has no splits"
        raise SourceError(f"{directory}: {has}, not {wanted!r}; leave dataset_split_name out")


def _read_names(path: AnyPath, names_in: Callable[[Any], list[str]]) -> list[str]:
    """Read the file names that a JSON file lists. Folders in them are ignored: the files are next to the JSON file."""
    return _read_json(path, lambda content: [PurePosixPath(name).name for name in names_in(content)])


def _read_json(path: AnyPath, values_in: Callable[[Any], list[Any]]) -> list[Any]:
    try:
        return values_in(json.loads(read_bytes(path)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SourceError(f"{path}: cannot be read as a list of the files of a data set") from None


def _no_files_error(directory: str, dataset: DatasetConfig) -> SourceError:
    split = f" of split {dataset.dataset_split_name!r}" if dataset.dataset_split_name else ""
    return SourceError(
        f"{directory}: no data files{split} in this directory; known extensions are {known_extensions()}"
    )


def _without_own_files(files: Sequence[P], root: AnyPath, place: str) -> list[P]:
    """Return the files that sftkit did not write.

    Raises:
        SourceError: There are none, but others.
    """
    foreign = OwnFiles(root).foreign(files)
    if files and not foreign:
        raise SourceError(
            f"{place}: sftkit wrote all data files there, such as {files[0]}; name the directory of the data set itself"
        )
    if len(foreign) < len(files):
        _log.info("%s: %d files that sftkit wrote are not read", place, len(files) - len(foreign))
    return foreign


def _select_data_files(names: Sequence[str], dataset: DatasetConfig, place: str) -> tuple[list[str], list[str]]:
    """Return the names of the data files of a directory that belong to the split of the data set, and of the others."""
    data = sorted(names, key=lambda name: name.split("/"))
    chosen = select_split(data, dataset, place)
    read = set(chosen)
    return chosen, [name for name in data if name not in read]


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


def _find_url(place: RemotePath, dataset: DatasetConfig) -> FoundFiles:
    try:
        sizes, left_out = with_retries(place, lambda: _remote_files(place, dataset))
    except FileNotFoundError:
        raise SourceError(f"{place}: no such file or directory") from None
    except OSError as error:
        raise SourceError(f"{place}: cannot be read: {error_reason(error)}") from None
    if not sizes:
        raise SourceError(f"{place}: no data files there")
    files = [replace(_source_file(url, size, dataset), options=place.options) for url, size in sizes]
    return FoundFiles(files, left_out)


def _remote_files(place: RemotePath, dataset: DatasetConfig) -> tuple[list[tuple[str, int]], list[str]]:
    """Return URLs and sizes in bytes of the data files at a URL, and the URLs of those of other splits."""
    system, inner = filesystem_for(place)
    system.invalidate_cache()
    others: list[str] = []
    if glob.has_magic(inner) and not system.isfile(inner):
        found = system.glob(inner, detail=True)
        matches = sorted(name for name, info in found.items() if info["type"] == "file")
        matches = _foreign_names(matches, "", system, place)
        of_split = _matches_of_split(matches, inner, place.url, dataset)
        names = [name for name in matches if name in of_split]
        others = [name for name in matches if name not in of_split]
    elif system.isdir(inner):
        root = inner.rstrip("/") + "/"
        found = system.find(inner, detail=True)
        present = [name.removeprefix(root) for name in found]
        require_complete_dataset(place)
        listed = _listed_files(place, present, dataset)
        if listed is None:
            data = [name for name in present if _is_data(name, dataset)]
            chosen, rest = _select_data_files(_foreign_names(data, root, system, place), dataset, place.url)
        else:
            chosen, rest = listed, []
        names, others = [root + name for name in chosen], [root + name for name in rest]
        if not names:
            raise _no_files_error(place.url, dataset)
    else:
        found = {inner: system.info(inner)}
        check_split_of_file(place.url, dataset)
        names = [inner]
    sizes = [(str(system.unstrip_protocol(name)), int(found[name]["size"] or 0)) for name in names]
    return sizes, [str(system.unstrip_protocol(name)) for name in others]


def _foreign_names(names: Sequence[str], root: str, system: Any, place: RemotePath) -> list[str]:
    """Return those of the names (relative to the root) of files that sftkit did not write."""
    places = {RemotePath(str(system.unstrip_protocol(root + name)), place.options): name for name in names}
    return [places[each] for each in _without_own_files(list(places), place, place.url)]


def _ready_to_scan(file: SourceFile) -> SourceFile:
    """Check the reader options of a file, and replace the format `json` by that of its content: an array or lines."""
    check_applicable(file)
    if file.reader.json_field is not None:
        return replace(file, format=JSON_ARRAY)
    if file.format != JSON:
        return file
    start = read_head(file)[0].lstrip(b"\xef\xbb\xbf \t\r\n")
    return replace(file, format=JSON_ARRAY if start.startswith(b"[") else JSON_LINES)
