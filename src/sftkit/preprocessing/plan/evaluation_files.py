"""Finds the files of the evaluation sets that `decontaminate` names, of all splits but the one for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from sftkit.config.schema.data_config import DatasetConfig
from sftkit.core.splits import TEST, TRAIN, VALIDATION, splits_from_path
from sftkit.errors import SourceError
from sftkit.sources.discovery.source_files import FoundFiles, find_sources
from sftkit.sources.source_file import ReadLimits, SourceFile
from sftkit.sources.streams.decompression import COMPRESSIONS

_TEXT = tuple(f".txt{compression}" for compression in ("", *COMPRESSIONS))


def is_text(path: str) -> bool:
    """Return whether a path names text files, which have a question a line.

    Example:
        >>> is_text("questions/*.txt"), is_text("a.txt.gz"), is_text("a.jsonl")
        (True, True, False)
    """
    return path.lower().endswith(_TEXT)


def find_evaluation_files(path: str, limits: ReadLimits, storage_options: Mapping[str, Any]) -> list[SourceFile]:
    """Find the files of an evaluation set.

    Of a directory or glob, files are left out if their names say that they are for training, unless all do. Of a
    data set that `datasets` finds, it is the test split, else the validation split, else the training split.

    Raises:
        SourceError: the path does not exist or has no files with rows.
    """
    # Files are found for a format. That of text files does not matter: they are read line by line.
    wanted = DatasetConfig(name=path, data_paths=(path,), builder="csv" if is_text(path) else None)
    for split in (TEST, VALIDATION):
        try:
            found = find_sources(replace(wanted, dataset_split_name=split), limits, storage_options)
        except SourceError:  # no such split; any other reason is found again below
            continue
        others = _not_for_training(found)
        if others:
            rest = find_sources(replace(wanted, data_paths=tuple(others)), limits, storage_options)
            return sorted([*found.files, *rest.files], key=lambda file: file.path)
        return found.files
    return find_sources(wanted, limits, storage_options).files


def _not_for_training(found: FoundFiles) -> list[str]:
    """Return those of the files left out that are not in the training split."""
    folders = [PurePosixPath(path).parent for path in (*(file.path for file in found.files), *found.left_out)]
    shared = next(
        each for each in (folders[0], *folders[0].parents) if all(other.is_relative_to(each) for other in folders)
    )
    # The directory is not a part of the names, which tell the split.
    names = {path: PurePosixPath(path).relative_to(shared).as_posix() for path in found.left_out}
    return [path for path, name in names.items() if splits_from_path(name) != frozenset({TRAIN})]
