"""Finding the source files of a data set: files, directories, globs, URLs, the bundled sample and Hub ids."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from sftkit.config.schema.data_config import DatasetConfig, ReaderConfig
from sftkit.errors import SourceError
from sftkit.sample import sample_path
from sftkit.sources.discovery.data_file_selection import (
    check_split_of_file,
    is_data_file,
    listed_files,
    no_files_error,
    select_split,
    split_data_files,
    split_glob,
)
from sftkit.sources.discovery.hub import find_hub_files
from sftkit.sources.discovery.own_files import OwnFiles
from sftkit.sources.format_registry import (
    JSON,
    JSON_ARRAY,
    JSON_LINES,
    format_from_name,
    is_format,
    known_extensions,
)
from sftkit.sources.reader_options import check_applicable
from sftkit.sources.source_file import ReadLimits, SourceFile
from sftkit.sources.streams.decompression import check_expansion
from sftkit.sources.streams.text_streams import read_head
from sftkit.storage.dataset_files import MANIFEST_NAME, require_complete_dataset
from sftkit.storage.paths import AnyPath, RemotePath, filesystem_for, filesystem_options, is_url
from sftkit.storage.retry import error_reason, with_retries

_log = logging.getLogger(__name__)

P = TypeVar("P", Path, RemotePath)

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$|^[A-Za-z0-9][\w-]*$")
_OBJECT_OVER_LINES = re.compile(rb"\{(?:[^\n]*[,\[{])?[ \t\r]*\n(?!\{)")  # not broken lines, the next of which is whole
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
        raise SourceError(f"{path}: is neither a file nor a directory; name one of them")
    if local.exists():
        check_split_of_file(path, dataset)
        return FoundFiles([_local_file(local, dataset)])
    if glob.has_magic(path):
        # Path.glob takes a root and a relative pattern, which would have to be split off here.
        found = sorted(Path(name) for name in glob.glob(str(local), recursive=True))  # noqa: PTH207
        files = [file for file in found if file.is_file()]
        if not files:
            raise SourceError(f"{path}: no file matches this pattern; correct it")
        files = _without_own_files(files, Path(split_glob(local.as_posix())[0]), path)
        names = _matches_of_split([file.as_posix() for file in files], local.as_posix(), path, dataset)
        return FoundFiles(
            [_local_file(file, dataset) for file in files if file.as_posix() in names],
            [str(file) for file in files if file.as_posix() not in names],
        )
    if _HUB_ID.match(path) and format_from_name(path)[0] is None:
        return FoundFiles(find_hub_files(dataset, path))
    raise SourceError(f"{path}: no such file or directory; correct the path")


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
    names = listed_files(directory, [path.name for path in directory.iterdir() if path.is_file()], dataset)
    others: list[str] = []
    if names is None:
        inside = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
        data = [directory / name for name in inside if is_data_file(name, dataset)]
        foreign = _without_own_files(data, directory, str(directory))
        names, others = split_data_files(
            [file.relative_to(directory).as_posix() for file in foreign], dataset, str(directory)
        )
    if not names:
        raise no_files_error(str(directory), dataset)
    return FoundFiles(
        [_local_file(directory / name, dataset) for name in names], [str(directory / name) for name in others]
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
        raise SourceError(f"{place}: no such file or directory; correct the path") from None
    except OSError as error:
        raise SourceError(f"{place}: cannot be read: {error_reason(error)}") from None
    if not sizes:
        raise SourceError(f"{place}: no data files there; name a place that has some")
    files = [
        replace(_source_file(url, size, dataset), options=place.options, packed_size=packed)
        for url, size, packed in sizes
    ]
    return FoundFiles(files, left_out)


def _remote_files(place: RemotePath, dataset: DatasetConfig) -> tuple[list[tuple[str, int, int | None]], list[str]]:
    """Return URL, size and packed size in bytes of the data files at a URL, and the URLs of those of other splits."""
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
        listed = listed_files(place, present, dataset)
        if listed is None:
            data = [name for name in present if is_data_file(name, dataset)]
            chosen, rest = split_data_files(_foreign_names(data, root, system, place), dataset, place.url)
        else:
            chosen, rest = listed, []
        names, others = [root + name for name in chosen], [root + name for name in rest]
        if not names:
            raise no_files_error(place.url, dataset)
    else:
        found = {inner: system.info(inner)}
        check_split_of_file(place.url, dataset)
        names = [inner]
    sizes = [
        (str(system.unstrip_protocol(name)), int(found[name]["size"] or 0), _packed_size(found[name], system))
        for name in names
    ]
    return sizes, [str(system.unstrip_protocol(name)) for name in others]


def _packed_size(info: Mapping[str, Any], system: Any) -> int | None:
    """Return the bytes that a file takes in its archive: in zip its own, in tar at most those of all files."""
    if "compress_size" in info:
        return int(info["compress_size"])
    archive: Any = getattr(system, "of", None)
    return int(archive.fs.size(archive.path)) if hasattr(archive, "fs") else None


def _foreign_names(names: Sequence[str], root: str, system: Any, place: RemotePath) -> list[str]:
    """Return those of the names (relative to the root) of files that sftkit did not write."""
    places = {RemotePath(str(system.unstrip_protocol(root + name)), place.options): name for name in names}
    return [places[each] for each in _without_own_files(list(places), place, place.url)]


def _ready_to_scan(file: SourceFile) -> SourceFile:
    """Check the reader options of a file, and replace the format `json` by that of its content: an array or lines."""
    check_applicable(file)
    if file.packed_size is not None:
        check_expansion(file, "packed", file.packed_size, file.size)
    if file.reader.json_field is not None:
        return replace(file, format=JSON_ARRAY)
    if file.format != JSON:
        return file
    start = read_head(file)[0].lstrip(b"\xef\xbb\xbf \t\r\n")
    if _OBJECT_OVER_LINES.match(start):
        raise SourceError(
            f"{file.path}: is one JSON object over several lines; if it holds the list of rows, name the key of that "
            "list as `json_field` in the `reader` of its data set, otherwise write one row per line or a list of rows"
        )
    return replace(file, format=JSON_ARRAY if start.startswith(b"[") else JSON_LINES)
