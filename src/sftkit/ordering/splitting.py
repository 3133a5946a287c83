"""Splits data sets into rows for training and for validation.

For the same seed, the result is that of `Dataset.shuffle` and `train_test_split` of `datasets` (5.x).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.config.schema.data_config import SplitConfig
from sftkit.core.rows import Offsets
from sftkit.errors import DataError

Indices = Offsets


@dataclass(frozen=True)
class MixSource:
    """What splitting and mixing need to know about a data set."""

    name: str
    rows: int
    sampling: float | None
    split: SplitConfig | None
    shuffle: bool | None
    """True: before splitting; False: not even for splitting; None: only for splitting."""
    as_fms: bool = False
    """Split as fms-hf-tuning does: a fraction that is not given, or 0, is a part that is split off and left out, and
    `shuffle: true` shuffles only for splitting."""
    amount: tuple[str, float] | None = None
    """The key that says how much of the rows for training is used, besides `sampling`, and its value."""
    conversations: Indices | None = None
    """The conversation that each row is a sample of, from 0, ascending, int64, shape (rows,): those of one conversation
    go to the same split. None if each row is one of its own."""


@dataclass(frozen=True)
class DatasetSplit:
    """The rows of a data set by split, as indices into the concatenated rows of all data sets."""

    source: MixSource
    train: Indices | None
    """None if all rows are for validation, as the config says."""
    validation: Indices


def split_rows(sources: Sequence[MixSource], seed: int) -> Iterator[DatasetSplit]:
    """Split each data set.

    Args:
        sources: the data sets.
        seed: of shuffling and splitting.

    Raises:
        DataError: a split would have no rows.

    Example:
        >>> [split] = split_rows([MixSource("a", 4, None, SplitConfig(validation=0.5), shuffle=False)], seed=42)
        >>> split.train.tolist(), split.validation.tolist()
        ([0, 1], [2, 3])
    """
    base = 0
    for source in sources:
        shuffled = source.shuffle is True and not source.as_fms
        rows = np.random.default_rng(seed).permutation(source.rows) if shuffled else np.arange(source.rows)
        rows += base
        base += source.rows
        if source.conversations is None or split_fractions(source.split) in ((1, 0), (0, 1)):
            train, validation = _split(rows, source, seed)
        else:
            first = base - source.rows
            train, validation = (first + part for part in _split_conversations(source, source.conversations, seed))
        yield DatasetSplit(source, None if _is_validation_only(source.split) else train, validation)


def split_fractions(split: SplitConfig | None) -> tuple[float, float]:
    """Return the fractions (train, validation); one that is not given is the rest.

    Example:
        >>> split_fractions(SplitConfig(validation=0.25))
        (0.75, 0.25)
    """
    if split is None or (split.train is None and split.validation is None):
        return 1.0, 0.0
    if split.train is None:
        assert split.validation is not None
        return 1.0 - split.validation, split.validation
    return split.train, 1.0 - split.train if split.validation is None else split.validation


def _is_validation_only(split: SplitConfig | None) -> bool:
    return split_fractions(split)[0] == 0


def _split(rows: Indices, part: MixSource, seed: int) -> tuple[Indices, Indices]:
    """Split like `train_test_split(train_size, test_size, shuffle, seed)`: validation comes first in a permutation."""
    train, validation = split_fractions(part.split)
    nothing = rows[:0]
    if validation == 0 and train == 1:
        return rows, nothing
    if train == 0 and validation == 1:
        return nothing, rows
    n_train, n_validation = _split_sizes(part, len(rows))
    if part.shuffle is False:
        parts = rows[:n_train], rows[n_train : n_train + n_validation]
    else:
        permutation = rows[np.random.default_rng(seed).permutation(len(rows))]
        parts = permutation[n_validation : n_validation + n_train], permutation[:n_validation]
    if not part.as_fms:
        return parts
    return parts[0] if train else nothing, parts[1] if validation else nothing


def _split_conversations(source: MixSource, conversations: Indices, seed: int) -> tuple[Indices, Indices]:
    """Split whole conversations as `_split` does rows, and return their rows; shuffled, unless `shuffle` forbids it."""
    counts = np.bincount(conversations)
    starts = np.cumsum(counts) - counts
    shuffled = source.shuffle is True and not source.as_fms
    order = np.random.default_rng(seed).permutation(len(counts)) if shuffled else np.arange(len(counts))
    train, validation = _split(order, source, seed)

    def rows_of(part: Indices) -> Indices:
        ends = np.cumsum(counts[part])
        rows = np.repeat(starts[part] - (ends - counts[part]), counts[part]) + np.arange(counts[part].sum())
        return rows if source.shuffle is False else np.random.default_rng(seed).permutation(rows)

    return rows_of(train), rows_of(validation)


def _split_sizes(part: MixSource, count: int) -> tuple[int, int]:
    """Return how many of `count` rows are split off for training and for validation.

    Raises:
        DataError: a part would have no rows.
    """
    train, validation = split_fractions(part.split)
    given = (part.split.train, part.split.validation) if part.split is not None else (None, None)
    if part.as_fms:
        given = (given[0] or None, given[1] or None)
    n_validation = math.ceil(validation * count)
    if given[1] is None:
        n_train = math.floor(train * count)
        n_validation = count - n_train
    else:
        n_train = count - n_validation if given[0] is None else math.floor(train * count)
    if (train and not n_train) or (validation and not n_validation) or n_train + n_validation > count:
        raise DataError(
            f"dataset {part.name!r}: {count} rows cannot be split into train {train} and validation {validation}; "
            "set fractions that give each split a row"
        )
    return n_train, n_validation
