"""What runs leave in `.staging`, and how it differs from the files of others.

The folder may be a link to a disk that holds other files, and anyone may put files into it. What is removed there is
known by its name and by a record that a run has made:

- A run's folder holds an empty file `RUN_MARK`. Of the files in it and in its folders, those with the names of shards
  are removed.
- Unfinished files (`.NAME.RUN.tmp`) are removed if the folder of their run is there.
- Staged units are removed if this run has used them, or if their content is that of a unit's file.

Links are never followed and never removed. Folders are removed only when they are empty.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from sftkit.shards.staging.unit_files import has_unit_schema
from sftkit.storage.dataset_files import is_unit_file, names_of_shards, template_date_in, unit_key_in
from sftkit.storage.files import TEMPORARY_SUFFIX, files_below
from sftkit.storage.paths import AnyPath

RUN_MARK = "sftkit_run"
"""A file in the folder of a run, from before its first shard is written."""

_RUN_FOLDER = re.compile(r"run-\d+-[0-9a-f]{8}")
_UNFINISHED_SHARD = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


def run_name() -> str:
    """Return a name for a run that no other run has."""
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


def run_folder_name(run: str) -> str:
    """Return the name of a run's folder in `.staging`."""
    return f"run-{run}"


def is_run_folder(name: str) -> bool:
    """Return whether a name is one that runs give to their folders."""
    return _RUN_FOLDER.fullmatch(name) is not None


def is_shard_of_run(name: str) -> bool:
    """Return whether a name, relative to the folder of a run, is that of a file of a shard, complete or not."""
    folder, slash, file = name.rpartition("/")
    unfinished = _UNFINISHED_SHARD.fullmatch(file)
    return bool(names_of_shards([folder + slash + (file if unfinished is None else unfinished[1])]))


def remove_unfinished(staging: Path, output: Path) -> None:
    """Remove the folders of runs that have ended, with their shards, and the unfinished files of these runs.

    What cannot be removed stays: a worker of a killed run may still be writing there.
    """
    runs = [path for path in staging.iterdir() if is_run_folder(path.name) and path.is_dir() and not path.is_symlink()]
    marked = [path for path in runs if is_regular(path / RUN_MARK) and not (path / RUN_MARK).stat().st_size]
    endings = tuple(f".{path.name.removeprefix('run-')}{TEMPORARY_SUFFIX}" for path in marked)
    for folder in (staging, output) if marked else ():
        _remove_files(path for path in folder.iterdir() if path.name.startswith(".") and path.name.endswith(endings))
    for path in marked:
        _remove_files(path / name for name in files_below(path) if is_shard_of_run(name))
        for below, _, _ in os.walk(path, topdown=False):
            remove_if_empty(Path(below))
        if [each.name for each in path.iterdir()] == [RUN_MARK]:
            _remove_files([path / RUN_MARK])
    for path in runs:
        remove_if_empty(path)


def remove_units(staging: Path, used_keys: Collection[str]) -> None:
    """Remove staged units: those of the given keys, and others whose files have the content of a unit's file.

    The files of template dates beside them are removed, too.
    """
    units = (path for path in staging.iterdir() if is_unit_file(path.name) and is_regular(path))
    _remove_files(path for path in units if is_staged(path, used_keys))
    _remove_files(path for path in staging.iterdir() if is_regular(path) and template_date_in(path) is not None)


def is_staged(path: AnyPath, used_keys: Collection[str]) -> bool:
    """Return whether a run has made a file that has the name of a unit's file."""
    return unit_key_in(path.name) in used_keys or has_unit_schema(path)


def is_regular(path: Path) -> bool:
    """Return whether a path is a regular file, and not a link to one."""
    return path.is_file() and not path.is_symlink()


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless something is in it, or it is a link."""
    with suppress(OSError):
        folder.rmdir()


def remove_empty_folders(root: Path, names: Iterable[str]) -> None:
    """Remove the folders below `root` that were those of some files, given by relative names, and are empty now."""
    parents = {parent for name in names for parent in PurePosixPath(name).parents if parent != PurePosixPath()}
    for parent in sorted(parents, key=lambda each: -len(each.parts)):
        if not any((root / each).is_symlink() for each in (parent, *parent.parents)[:-1]):
            remove_if_empty(root / parent)


def _remove_files(paths: Iterable[Path] | Iterator[Path]) -> None:
    for path in list(paths):
        if is_regular(path):
            with suppress(OSError):
                path.unlink(missing_ok=True)
