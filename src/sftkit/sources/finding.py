"""`data_paths` -> source files: files, directories, globs, URLs, bundled samples, Hub ids."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sftkit.config.schema import DatasetConfig
from sftkit.errors import SourceError
from sftkit.sample import sample_path
from sftkit.sources import hub
from sftkit.sources.formats import BUILDERS, JSON, JSON_ARRAY, format_of_name, known_endings
from sftkit.sources.model import SourceFile
from sftkit.sources.opening import is_url, open_bytes
from sftkit.splits import TRAIN, split_of_name

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$|^[A-Za-z0-9][\w-]*$")
_MANIFEST = "manifest.json"
_FORMATS_OF_BUILDERS = {name: {kind} for name, kind in BUILDERS.items()} | {"json": {JSON, "jsonl"}, "csv": {"csv", "tsv"}}


def find_sources(dataset: DatasetConfig) -> list[SourceFile]:
    """The files of a data set, in the order of its `data_paths` (a directory's or glob's by name).

    Raises:
        SourceError: a path leads to nothing, or to nothing that can be read as rows.
    """
    files = [file for path in dataset.data_paths for file in _find(path, dataset)]
    filled = [file for file in files if file.size]
    if not filled:
        raise SourceError(f"{dataset.data_paths[0]}: the file is empty" if files else f"{dataset.name}: no data paths")
    return [_with_json_kind(file) for file in filled]


def _find(path: str, dataset: DatasetConfig) -> list[SourceFile]:
    if is_url(path):
        return _find_url(path, dataset)
    local = Path(sample_path(path)).expanduser()
    if dataset.builder is not None and dataset.builder not in BUILDERS:
        return hub.find(dataset, str(local), builder=dataset.builder)
    if _is_repository(local):
        return hub.find(dataset, str(local))
    if local.is_dir():
        return _in_directory(local, dataset)
    if local.exists():
        return [_local_file(local, dataset)]
    if glob.has_magic(path):
        # Path.glob wants a root and a relative pattern; what the user wrote is neither
        found = sorted(Path(name) for name in glob.glob(str(local), recursive=True))  # noqa: PTH207
        files = [_local_file(file, dataset) for file in found if file.is_file()]
        if not files:
            raise SourceError(f"{path}: no file matches this pattern")
        return files
    if _HUB_ID.match(path) and format_of_name(path)[0] is None:
        return hub.find(dataset, path)
    raise SourceError(f"{path}: no such file or directory")


def _local_file(path: Path, dataset: DatasetConfig) -> SourceFile:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    return _source_file(str(path), size, dataset)


def _source_file(path: str, size: int, dataset: DatasetConfig) -> SourceFile:
    kind, compression = format_of_name(path)
    if dataset.builder is not None and dataset.builder in BUILDERS:
        # `builder: json` says nothing against .jsonl, nor `csv` against .tsv: the ending knows better.
        kind = kind if kind in _FORMATS_OF_BUILDERS[dataset.builder] else BUILDERS[dataset.builder]
    if kind is None:
        raise SourceError(f"{path}: unknown kind of file; known endings are {known_endings()} (or give `builder`)")
    return SourceFile(dataset.name, path, kind, compression, size)


def _in_directory(directory: Path, dataset: DatasetConfig) -> list[SourceFile]:
    files = _data_files(directory, dataset)
    if (directory / _MANIFEST).is_file() or _names_splits(files, directory):
        files = [path for path in files if _in_split(path, directory, dataset)]
    elif (state := directory / "state.json").is_file():  # datasets.save_to_disk
        names = json.loads(state.read_text(encoding="utf-8")).get("_data_files", [])
        files = [directory / entry["filename"] for entry in names]
    if not files:
        split = f" of split {dataset.dataset_split_name!r}" if dataset.dataset_split_name else ""
        raise SourceError(f"{directory}: no data files{split} in this directory; known endings are {known_endings()}")
    return [_local_file(path, dataset) for path in files]


def _data_files(directory: Path, dataset: DatasetConfig) -> list[Path]:
    """Data files below a directory by name; hidden ones, markers like _SUCCESS, and what is no data left aside."""

    def visible(path: Path) -> bool:
        parts = path.relative_to(directory).parts
        if any(part.startswith((".", "_")) for part in parts):
            return False
        return path.name not in _METADATA_FILES and not path.match("cache-*.arrow")  # `datasets` keeps those

    known = (path for path in directory.rglob("*") if path.is_file() and visible(path))
    return sorted(path for path in known if dataset.builder or format_of_name(path.name)[0] is not None)


_METADATA_FILES = frozenset({_MANIFEST, "dataset_info.json", "dataset_dict.json", "state.json", "quarantine.jsonl"})


def _names_splits(files: Iterable[Path], directory: Path) -> bool:
    """Whether the names of data files tell a training part from a validation part."""
    splits = {split_of_name(path.relative_to(directory).as_posix()) for path in files}
    return len(splits - {None}) > 1


def _in_split(path: Path, directory: Path, dataset: DatasetConfig) -> bool:
    named = split_of_name(path.relative_to(directory).as_posix())
    wanted = dataset.dataset_split_name or TRAIN
    return named == (split_of_name(wanted) or wanted)


def _is_repository(path: Path) -> bool:
    """Whether a directory is laid out as a Hub data set: a card that says which files belong to which split."""
    card = path / "README.md"
    if not card.is_file() or (path / _MANIFEST).is_file():
        return False
    try:
        head = card.read_text(encoding="utf-8", errors="replace")[:100_000]
    except OSError:
        return False
    return head.startswith("---") and ("\nconfigs:" in head or "\ndataset_info:" in head)


def _find_url(path: str, dataset: DatasetConfig) -> list[SourceFile]:
    import fsspec

    try:
        system, inner = fsspec.url_to_fs(path)
        if glob.has_magic(inner):
            names = sorted(system.glob(inner))
        elif system.isdir(inner):
            names = sorted(name for name in system.find(inner) if format_of_name(name)[0] is not None)
        else:
            names = [inner]
        sizes = [(str(system.unstrip_protocol(name)), int(system.info(name)["size"] or 0)) for name in names]
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file or directory") from None
    except ImportError as error:
        raise SourceError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
    if not sizes:
        raise SourceError(f"{path}: no data files there")
    return [_source_file(url, size, dataset) for url, size in sizes]


def _with_json_kind(file: SourceFile) -> SourceFile:
    """`.json` may hold an array or one object a line; its first character tells."""
    if file.format != JSON:
        return file
    with open_bytes(file) as stream:
        start = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return replace(file, format=JSON_ARRAY if start.startswith(b"[") else "jsonl")
