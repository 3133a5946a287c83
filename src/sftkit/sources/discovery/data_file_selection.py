"""The data files of a directory or glob: those that it lists itself, or those whose names say the wanted split."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from glob import has_magic
from pathlib import PurePosixPath
from typing import Any

from sftkit.config.schema.data_config import DatasetConfig
from sftkit.core.splits import TEST, TRAIN, VALIDATION, is_in_split, split_of_keyword, splits_from_path
from sftkit.errors import SourceError
from sftkit.sources.format_registry import format_from_name, known_extensions
from sftkit.storage.dataset_files import MANIFEST_NAME, QUARANTINE_NAME
from sftkit.storage.files import read_bytes
from sftkit.storage.paths import AnyPath

_STATE = "state.json"
_METADATA_FILES = frozenset({MANIFEST_NAME, "dataset_info.json", "dataset_dict.json", _STATE, QUARANTINE_NAME})
_WILDCARDS = re.compile(r"\[[^\]]*\]|[*?\[\]]+")
_SHOWN_NAMES = 3


def listed_files(directory: AnyPath, present: Sequence[str], dataset: DatasetConfig) -> list[str] | None:
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


def split_data_files(names: Sequence[str], dataset: DatasetConfig, place: str) -> tuple[list[str], list[str]]:
    """Return the names of the data files of a directory that belong to the split of the data set, and of the others."""
    data = sorted(names, key=lambda name: name.split("/"))
    chosen = select_split(data, dataset, place)
    read = set(chosen)
    return chosen, [name for name in data if name not in read]


def is_data_file(name: str, dataset: DatasetConfig) -> bool:
    """Exclude hidden files, markers such as _SUCCESS, metadata and cache files of `datasets`."""
    path = PurePosixPath(name)
    if any(part.startswith((".", "_")) for part in path.parts):
        return False
    if path.name in _METADATA_FILES or path.match("cache-*.arrow"):
        return False
    return dataset.builder is not None or format_from_name(name)[0] is not None


def no_files_error(directory: str, dataset: DatasetConfig) -> SourceError:
    """Return the error about a directory without data files."""
    split = f" of split {dataset.dataset_split_name!r}" if dataset.dataset_split_name else ""
    return SourceError(
        f"{directory}: no data files{split} in this directory; known extensions are {known_extensions()}"
    )


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


def select_split(names: Sequence[str], dataset: DatasetConfig, place: str, pattern: str = "") -> list[str]:
    """Return the files that belong to the split of a data set.

    Without `dataset_split_name`, that is the training split, or the validation split if all rows go to validation.
    Files that name no split are read if no file names the wanted one, or if no file names a held-out split.

    Args:
        names: Paths of the data files, relative to the directory or to the part of a glob without wildcards.
        dataset: The data set.
        place: The directory or glob, for error messages.
        pattern: The part of a glob with wildcards, which may name a split itself.

    Raises:
        SourceError: There are files, but none of that split.
    """
    chosen = _chosen(names, dataset, pattern)
    if names and not chosen:
        found = sorted({split for name in names for split in splits_from_path(name)})
        shown = ", ".join(names[:_SHOWN_NAMES]) + (", ..." if len(names) > _SHOWN_NAMES else "")
        wanted = repr(dataset.dataset_split_name or TRAIN)
        remedy = f"set dataset_split_name to {' or '.join(found)}" if found else "leave dataset_split_name out"
        where = "match this pattern" if pattern else "in this directory"
        raise SourceError(
            f"{place}: no data files of split {wanted} {where} (it has {shown}); {remedy}, or name files in data_paths"
        )
    return chosen


def _chosen(names: Sequence[str], dataset: DatasetConfig, pattern: str) -> list[str]:
    splits = {name: splits_from_path(name) for name in names}

    def of(split: str) -> list[str]:
        return [name for name in names if split in splits[name]]

    wanted = dataset.dataset_split_name
    if wanted is None and pattern:
        named = splits_from_path(_WILDCARDS.sub("-", pattern))
        wanted = next(iter(named)) if len(named) == 1 else None
    plain = [name for name in names if not splits[name]]
    if wanted in (None, TRAIN):
        if not of(VALIDATION) and not of(TEST):
            return list(names)
        if wanted is None and dataset.split is not None and dataset.split.validation == 1:
            return of(VALIDATION) or plain or of(TEST) or of(TRAIN)
        return of(TRAIN) or plain
    assert wanted is not None
    exact = [] if wanted in (VALIDATION, TEST) else [name for name in names if is_in_split(name, wanted)]
    return exact or of(split_of_keyword(wanted) or "")


def check_split_of_file(path: str, dataset: DatasetConfig) -> None:
    """Check that `dataset_split_name` does not ask for another split than that of a file that is named itself.

    Raises:
        SourceError: It does.
    """
    wanted = dataset.dataset_split_name
    if wanted is None or wanted == TRAIN or is_in_split(path, wanted):
        return
    if split_of_keyword(wanted) not in splits_from_path(path):
        raise SourceError(
            f"{path}: is one file, and its name does not say split {wanted!r}; leave dataset_split_name out"
        )


def split_glob(pattern: str) -> tuple[str, str]:
    """Return the part of a glob before its first wildcard, up to a slash, and the rest.

    Example:
        >>> split_glob("data/*/test-*.jsonl")
        ('data/', '*/test-*.jsonl')
    """
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if has_magic(part))
    rest = "/".join(parts[first:])
    return pattern.removesuffix(rest), rest
