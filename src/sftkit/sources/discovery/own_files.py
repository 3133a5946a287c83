"""The files that sftkit itself writes: no sources when a directory above them, or a glob, is given.

The output of a run may lie below its source directory, and the same command must find the same sources again. A
directory that a data path names is read whatever is in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from sftkit.storage.dataset_files import (
    CARD_NAME,
    MANIFEST_NAME,
    ROW_LIST_NAMES,
    STAGING_NAME,
    is_format_file,
    is_row_list,
    is_shard_name,
    is_unit_file,
    names_in_journal,
    names_of_shards,
    template_date_in,
)
from sftkit.storage.files import read_bytes
from sftkit.storage.paths import AnyPath, RemotePath
from sftkit.storage.training_files import is_training_output

P = TypeVar("P", Path, RemotePath)

_DEEPEST = 2
"""Folders between a data set and its shards, as in `mds/train/`."""


class OwnFiles:
    """Recognizes the files that sftkit wrote below a directory. Looks at a directory only if a name is one of ours.

    Args:
        root: the directory, or the part of a glob before its first wildcard.
    """

    def __init__(self, root: AnyPath) -> None:
        self._root = root
        self._shards: dict[str, frozenset[str] | None] = {}
        self._of_training: dict[Path, bool] = {}

    def foreign(self, paths: Sequence[P]) -> list[P]:
        """Return the paths that sftkit did not write."""
        return [path for path in paths if not self._is_own(path)]

    def _is_own(self, path: AnyPath) -> bool:
        name = path.name
        if is_unit_file(name) or template_date_in(path) is not None:
            return True
        if name in ROW_LIST_NAMES:
            return is_row_list(path)
        if is_shard_name(name) or name in (MANIFEST_NAME, CARD_NAME):
            shards = self._shards_in(path.parent)
            if shards is not None and (name in shards or not is_shard_name(name)):
                return True
        if self._is_in_format_folder(path):
            return True
        return isinstance(path, Path) and self._is_in_training_output(path.parent)

    def _is_in_format_folder(self, path: AnyPath) -> bool:
        """Return whether a file is a shard in a folder of a data set, such as `mds/train/`."""
        below, folder = path.name, path.parent
        for _ in range(_DEEPEST):
            below, folder = f"{folder.name}/{below}", folder.parent
            if is_format_file(below) and below in (self._shards_in(folder) or ()):
                return True
        return False

    def _shards_in(self, folder: AnyPath) -> frozenset[str] | None:
        """Return the shards that the manifest or the journal of a directory names; None if it has neither."""
        key = str(folder)
        if key not in self._shards:
            manifest, journal = _shards_in_manifest(folder), names_in_journal(folder / STAGING_NAME)
            known = manifest is not None or journal is not None
            self._shards[key] = frozenset([*(manifest or ()), *(journal or ())]) if known else None
        return self._shards[key]

    def _is_in_training_output(self, folder: Path) -> bool:
        """Return whether a directory below the root is the output of `train`, or in it."""
        if folder == self._root or folder == folder.parent or not folder.is_relative_to(str(self._root)):
            return False
        if folder not in self._of_training:
            self._of_training[folder] = is_training_output(folder) or self._is_in_training_output(folder.parent)
        return self._of_training[folder]


def _shards_in_manifest(folder: AnyPath) -> list[str] | None:
    """Return the shards that a manifest names; None if there is no manifest of sftkit."""
    try:
        content = json.loads(read_bytes(folder / MANIFEST_NAME))
        if "fingerprint" not in content:
            return None
        shards = [shard["file"] for split in content["splits"].values() for shard in split["shards"]]
        others = [file["file"] for files in content.get("formats", {}).values() for file in files]
        return names_of_shards([*shards, *others])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
