"""Choosing the files of one split from those of a directory or glob."""

from __future__ import annotations

import re
from collections.abc import Sequence
from glob import has_magic

from sftkit.config.schema import DatasetConfig
from sftkit.core.splits import TEST, TRAIN, VALIDATION, is_in_split, split_of_keyword, splits_from_path
from sftkit.errors import SourceError

_WILDCARDS = re.compile(r"\[[^\]]*\]|[*?\[\]]+")
_SHOWN_NAMES = 3


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
