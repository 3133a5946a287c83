"""Finds the files of `output_format` that a manifest lists, and the manifest that lists a file or folder."""

from __future__ import annotations

import re

from sftkit.errors import DataError, OutputError
from sftkit.shards.manifest import FormatFile, Manifest, read_manifest
from sftkit.shards.readers.find_files import Splits
from sftkit.storage.dataset_files import MANIFEST_NAME, is_format_file
from sftkit.storage.files import file_size
from sftkit.storage.paths import AnyPath, RemotePath

_SHARD_NAME = re.compile(r"^\w+?-\d+-of-\d+")
_NUMBERS = re.compile(r"\d+")
_LEVELS = 3
"""A file is at most in a folder of its split in a folder of its format."""


def listed_splits(root: AnyPath, manifest: Manifest, below: str) -> Splits:
    """Return the files with rows that a manifest lists, by split, in formats other than Parquet.

    A format may write the same rows in several ways, such as Megatron's pairs of files and packed Parquet. The first of
    them that is listed is taken.

    Args:
        root: the directory of the manifest.
        manifest: what lists them.
        below: a folder in it or one of the files, as a relative path.

    Raises:
        DataError: a file is missing, has another size than the manifest says, or a name that no run gives.
    """
    files = [file for file in manifest.format_files if file.rows is not None and _is_below(file, below)]
    found: dict[str, list[AnyPath]] = {}
    for file in files:
        if _kind_of(file) == _kind_of(files[0]):
            found.setdefault(_split_of(file, manifest, root), []).append(_checked(root, file))
    return {name: tuple(found[name]) for name in manifest.splits if name in found}


def find_manifest_above(place: AnyPath) -> tuple[AnyPath, Manifest, str] | None:
    """Find the manifest that lists a file or a folder of `output_format`.

    Returns:
        Its directory, the manifest, and the path of `place` in that directory; None if there is none that can be read.
    """
    folder = place if isinstance(place, RemotePath) else place.absolute()
    name = ""
    for _ in range(_LEVELS):
        name = f"{folder.name}/{name}".rstrip("/")
        if isinstance(folder, RemotePath) and "/" not in folder.url.partition("://")[2]:
            return None
        folder = folder.parent
        manifest = _readable_manifest(folder)
        if manifest is not None:
            return (folder, manifest, name) if any(_is_below(file, name) for file in manifest.format_files) else None
    return None


def _readable_manifest(folder: AnyPath) -> Manifest | None:
    try:
        return read_manifest(folder)
    except OutputError:
        return None  # it may have nothing to do with the folder; `--verify` reports it


def _is_below(file: FormatFile, folder: str) -> bool:
    return isinstance(file.file, str) and f"{file.file}/".startswith(f"{folder}/")


def _kind_of(file: FormatFile) -> str:
    """Return what follows the name of the shard, without numbers: `_text_document.bin`, `..mds`."""
    return _NUMBERS.sub("", _SHARD_NAME.sub("", file.file.rpartition("/")[2]))


def _split_of(file: FormatFile, manifest: Manifest, root: AnyPath) -> str:
    name = file.file.rpartition("/")[2]
    split = next((each for each in manifest.splits if name.startswith(f"{each}-")), None)
    if split is None or not is_format_file(file.file):
        raise DataError(f"{root / MANIFEST_NAME}: lists {file.file}, which is no name of a shard; run preprocess again")
    return split


def _checked(root: AnyPath, file: FormatFile) -> AnyPath:
    path = root / file.file
    size = file_size(path)
    if size != file.bytes:
        what = "is listed in the manifest but missing" if size < 0 else f"has {size:,} of {file.bytes:,} bytes"
        raise DataError(f"{path}: {what}; copy the data set again, or run preprocess again to rebuild it")
    return path
