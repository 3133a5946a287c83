"""Splits and mixes data sets: from row counts to the order of the rows of each split.

For the same seed, the result is that of `datasets` (5.x): `Dataset.shuffle`, `train_test_split` and
`interleave_datasets`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.config.schema.data_config import SplitConfig
from sftkit.core.rows import Offsets
from sftkit.core.splits import TRAIN, VALIDATION
from sftkit.errors import DataError

Indices = Offsets

_DRAWS_AT_ONCE = 1000  # as `datasets` does; blocks of any size give the same draws


@dataclass(frozen=True)
class MixSource:
    """What mixing needs to know about a data set."""

    name: str
    rows: int
    sampling: float | None
    split: SplitConfig | None
    shuffle: bool | None
    """True: before splitting; False: not even for splitting; None: only for splitting."""
    as_fms: bool = False
    """Split as fms-hf-tuning does: a fraction that is not given, or 0, is a part that is split off and left out, and
    `shuffle: true` shuffles only for splitting."""


def order_splits(parts: Sequence[MixSource], seed: int, stopping_strategy: str) -> dict[str, Indices]:
    """Return the rows of each split in order, as indices into the concatenated rows of all data sets.

    Training rows are interleaved by the weights of the data sets if they have any, else concatenated; validation rows
    are always concatenated.

    Args:
        parts: the data sets.
        seed: of shuffling, splitting and mixing.
        stopping_strategy: as in `interleave`.

    Raises:
        DataError: a split, or a data set with a weight, would have no rows.
    """
    trains: list[tuple[MixSource, Indices]] = []
    validations: list[Indices] = []
    base = 0
    for part in parts:
        shuffled = part.shuffle is True and not part.as_fms
        rows = np.random.default_rng(seed).permutation(part.rows) if shuffled else np.arange(part.rows)
        rows += base
        base += part.rows
        train, validation = _split(rows, part, seed)
        if not _is_validation_only(part.split):
            trains.append((part, train))
        validations.append(validation)
    return {TRAIN: _mix(trains, seed, stopping_strategy), VALIDATION: _joined(validations)}


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


def _mix(trains: Sequence[tuple[MixSource, Indices]], seed: int, stopping_strategy: str) -> Indices:
    weights = [part.sampling for part, _ in trains]
    if all(weight is None for weight in weights):
        return _joined([rows for _, rows in trains])
    given = [0.0 if weight is None else weight for weight in weights]
    for (part, rows), weight in zip(trains, given, strict=True):
        if weight > 0 and not len(rows):
            raise DataError(f"dataset {part.name!r} has a sampling weight of {weight} and no rows to sample")
    lengths = [len(rows) for _, rows in trains]
    drawn = interleave(lengths, given, seed, stopping_strategy)
    return np.concatenate([rows for _, rows in trains])[drawn]


def _joined(parts: Sequence[Indices]) -> Indices:
    """Concatenate parts; a single part is not copied."""
    filled = [part for part in parts if len(part)]
    return filled[0] if len(filled) == 1 else np.concatenate([*filled, np.arange(0)])


def interleave(lengths: Sequence[int], weights: Sequence[float], seed: int, stopping_strategy: str) -> Indices:
    """Interleave parts like `datasets.interleave_datasets(probabilities=weights)`.

    Args:
        lengths: rows of each part.
        weights: probability of each part; they sum to 1.
        seed: of the random draws.
        stopping_strategy: `first_exhausted`, `all_exhausted` (rows repeat) or `all_exhausted_without_replacement`.

    Returns:
        Indices into the concatenated parts.

    Raises:
        DataError: a part with the weight 0 would have to be exhausted.

    Example:
        >>> interleave([2, 2], [0.5, 0.5], seed=42, stopping_strategy="first_exhausted").tolist()
        [2, 0, 3]
    """
    sizes = np.asarray(lengths, np.int64)
    drawable = np.asarray(weights, np.float64) > 0
    if stopping_strategy != "first_exhausted" and not drawable.all():
        raise DataError(
            f"sampling_stopping_strategy={stopping_strategy} cannot exhaust a data set whose sampling weight is 0; "
            "remove it, or use first_exhausted"
        )
    draws = _draws(sizes, np.asarray(weights, np.float64), drawable, seed, first=stopping_strategy == "first_exhausted")
    bases = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    result = np.empty(len(draws), np.int64)
    kept = np.ones(len(draws), np.bool_)
    ends = []
    for part in np.flatnonzero(drawable):
        places = np.flatnonzero(draws == part)
        ends.append(places[sizes[part] - 1] if len(places) >= sizes[part] else len(draws) - 1)
        turn = np.arange(len(places))
        result[places] = bases[part] + turn % sizes[part]
        kept[places] = turn < sizes[part]
    if stopping_strategy == "first_exhausted":
        return result[: min(ends) + 1]
    if stopping_strategy == "all_exhausted":
        return result[: max(ends) + 1]
    return result[kept]


def _draws(
    sizes: Offsets,
    weights: np.ndarray[tuple[int], np.dtype[np.float64]],
    drawable: np.ndarray[tuple[int], np.dtype[np.bool_]],
    seed: int,
    *,
    first: bool,
) -> Offsets:
    """Draw parts, in blocks, until the first part (or every part) has been drawn as often as it has rows."""
    total = weights.sum()
    probabilities = weights if abs(total - 1) < 1e-9 else weights / total
    generator = np.random.default_rng(seed)
    counts = np.zeros(len(sizes), np.int64)
    blocks: list[Offsets] = []
    while True:
        reached = (counts >= sizes)[drawable]
        if reached.any() if first else reached.all():
            return np.concatenate([*blocks, np.arange(0)])
        block = generator.choice(len(sizes), size=_DRAWS_AT_ONCE, p=probabilities)
        blocks.append(block)
        counts += np.bincount(block, minlength=len(sizes))
