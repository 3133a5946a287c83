"""How many rows a mix takes of each data set, and in each stage: from weights, other amounts, and a total.

Amounts are positions in the copies of a data set (`sftkit.ordering.copies`): a stage takes the rows from the position
where the stage before it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftkit.config.schema.data_config import (
    ALL_EXHAUSTED,
    MAX_ROWS,
    MAX_TOKENS,
    REPEAT,
    ROWS,
    TARGET_TOKENS,
    TOKENS,
    WEIGHT,
    ProcessorConfig,
)
from sftkit.config.schema.mix_choices import stage_weights
from sftkit.core.rows import Offsets
from sftkit.errors import DataError
from sftkit.ordering.copies import RowCopies

Shares = npt.NDArray[np.float64]

MOST_ROWS = 2**31 - 1
"""Packs number their rows in 32 bits."""

_MOST_STEPS = 200
"""Of a search by halving, which ends before that where floats are exhausted."""


@dataclass(frozen=True)
class MixPart:
    """A data set in a mix."""

    name: str
    copies: RowCopies
    amount: tuple[str, float] | None
    """The key that says how much of it is used, and its value; None: each row once, or as the stages say."""


@dataclass(frozen=True)
class MixAmounts:
    """How much a mix takes of each data set."""

    ends: Offsets
    """The position in the copies of each data set where each stage ends, shape (stages, data sets)."""
    wanted: Shares
    """The share of each data set in the whole as the config asks for it, shape (data sets,); they sum to 1."""


def find_amounts(parts: Sequence[MixPart], processor: ProcessorConfig) -> MixAmounts:
    """Decide how much is taken of each data set.

    A data set with another key than `weight`, or with none, gets its own amount. Those with a weight, or all data sets
    if there are stages, divide what remains of the total. Without a total, they become as much as is possible without
    repeating a row (`first_exhausted`), or as little as is possible with every row (`all_exhausted`).

    Args:
        parts: the data sets.
        processor: with `mix_by`, `stages`, a total, and `sampling_stopping_strategy`.

    Raises:
        DataError: a data set has nothing to take, or the mix would be too large.

    Example:
        >>> parts = [
        ...     MixPart("a", RowCopies(np.arange(10), {}, seed=1), ("weight", 3)),
        ...     MixPart("b", RowCopies(np.arange(10, 20), {}, seed=1), ("weight", 1)),
        ... ]
        >>> find_amounts(parts, ProcessorConfig()).ends.tolist()
        [[10, 3]]
        >>> find_amounts(parts, ProcessorConfig(total_rows=80)).ends.tolist()
        [[60, 20]]
    """
    shares = _cumulative_shares(parts, processor)
    own = [_own_amount(part, processor) for part in parts]
    counts, wanted = np.array([count for count, _ in own]), np.array([amount for _, amount in own])
    ends = np.tile(counts, (len(shares), 1))
    weighted = shares[-1] > 0
    if weighted.any():
        _check_weighted(parts, weighted, processor.mix_by)
        ends, whole = _divide(parts, shares, ends, processor)
        wanted = wanted + shares[-1] * whole
    _check_taken(parts, ends[-1])
    _check_rows(ends[-1])
    return MixAmounts(ends, wanted / wanted.sum() if wanted.any() else wanted)


def _own_amount(part: MixPart, processor: ProcessorConfig) -> tuple[int, float]:
    """Return how many rows a data set gets by its own key, and the amount that it asks for; 0 if its weight decides."""
    copies, mix_by = part.copies, processor.mix_by
    key, value = part.amount or (REPEAT, 1)
    if key == WEIGHT or processor.stages or not len(copies):
        return 0, 0.0
    whole = copies.whole(mix_by)
    if key == REPEAT:
        _check_copies(part, value)
        count = copies.count_for(value * whole, mix_by) if whole else int(value) * len(copies)
        return count, value * whole
    if key == TARGET_TOKENS:
        _check_copies(part, value / copies.whole(TOKENS))
        count = copies.count_for(value, TOKENS)
        return count, value if mix_by == TOKENS else copies.amount_of(count, mix_by)
    limit = {MAX_ROWS: ROWS, MAX_TOKENS: TOKENS}[key]
    count = len(copies) if value >= copies.whole(limit) else copies.count_within(int(value), limit)
    return count, copies.amount_of(count, mix_by)


def _cumulative_shares(parts: Sequence[MixPart], processor: ProcessorConfig) -> Shares:
    """Return the share of each data set in the weighted whole at the end of each stage, shape (stages, data sets)."""
    names = [part.name for part in parts]
    if processor.stages:
        weights = [stage_weights(stage.weights, names) for stage in processor.stages]
    else:
        weights = [{part.name: part.amount[1] for part in parts if part.amount and part.amount[0] == WEIGHT}]
    ends = [stage.until if stage.until is not None else 1.0 for stage in processor.stages] or [1.0]
    shares = np.array([[of_stage.get(name, 0.0) for name in names] for of_stage in weights]).reshape(len(ends), -1)
    totals = shares.sum(axis=1, keepdims=True)
    result: Shares = np.cumsum(
        shares / np.where(totals > 0, totals, 1) * np.diff(ends, prepend=0.0)[:, np.newaxis], axis=0
    )
    return result


def _divide(
    parts: Sequence[MixPart], shares: Shares, own: Offsets, processor: ProcessorConfig
) -> tuple[Offsets, float]:
    """Divide a whole by shares; returns the ends of all data sets and the whole, in `mix_by`."""
    sizes = np.array([part.copies.whole(processor.mix_by) for part in parts])
    weighted = shares[-1] > 0
    possible = sizes[weighted] / shares[-1][weighted]
    if processor.total_rows is not None:
        return _fit(parts, shares, own, processor, (ROWS, processor.total_rows))
    if processor.total_tokens is not None:
        return _fit(parts, shares, own, processor, (TOKENS, processor.total_tokens))
    repeats = processor.sampling_stopping_strategy == ALL_EXHAUSTED
    whole = float(possible.max() if repeats else possible.min())
    ends = own + _ends(parts, shares, whole, processor.mix_by)
    if repeats:  # also rows without a trained token, which are of size 0
        least = np.where(weighted, [len(part.copies) for part in parts], 0)
        ends[-1] = np.maximum(ends[-1], least)
    return ends, whole


def _ends(parts: Sequence[MixPart], shares: Shares, whole: float, mix_by: str) -> Offsets:
    """Return where each stage ends in the copies of each data set; 0 for data sets without a share."""
    return np.array(
        [
            [
                part.copies.count_for(share * whole, mix_by) if share else 0
                for part, share in zip(parts, each, strict=True)
            ]
            for each in shares.tolist()
        ]
    ).reshape(shares.shape)


def _fit(
    parts: Sequence[MixPart],
    shares: Shares,
    own: Offsets,
    processor: ProcessorConfig,
    total: tuple[str, int],
) -> tuple[Offsets, float]:
    """Find, by halving, the whole whose size is nearest to a total, which may be in another measure than `mix_by`."""
    measure, asked = total
    rest = asked - _size(parts, own[-1], measure)
    if rest <= 0:
        raise DataError(
            f"total_{measure}={asked:,} leaves nothing for the data sets with a weight: the others have "
            f"{asked - rest:,} {measure}; raise it, or take less of those"
        )
    low, high = 0.0, 1.0
    at_low, at_high = np.zeros_like(own), _ends(parts, shares, high, processor.mix_by)
    while _size(parts, at_high[-1], measure) < rest:
        _check_rows(at_high[-1])
        low, at_low, high = high, at_high, high * 2
        at_high = _ends(parts, shares, high, processor.mix_by)
    for _ in range(_MOST_STEPS):
        middle = (low + high) / 2
        if (at_high[-1] - at_low[-1]).sum() <= 1 or not low < middle < high:
            break
        at_middle = _ends(parts, shares, middle, processor.mix_by)
        if _size(parts, at_middle[-1], measure) <= rest:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    # A stage without a share of a data set begins and ends at the same position, here as in `at_high`.
    ends = np.minimum(at_high, _nearest(parts, at_low[-1], at_high[-1], (measure, rest)))
    if not ends.any():
        raise DataError(
            f"total_{measure}={asked:,} takes no row of the data sets with a weight: one row more is further from it; "
            "raise it"
        )
    return own + ends, rest if measure == processor.mix_by else (low + high) / 2


def _nearest(parts: Sequence[MixPart], low: Offsets, high: Offsets, total: tuple[str, int]) -> Offsets:
    """Add rows of one data set after the other, up to `high`, as long as that comes nearer to a total."""
    measure, asked = total
    counts, size = low.copy(), _size(parts, low, measure)
    for index, part in enumerate(parts):
        while counts[index] < high[index]:
            count = int(counts[index])
            row = part.copies.amount_of(count + 1, measure) - part.copies.amount_of(count, measure)
            if abs(size + row - asked) >= abs(size - asked):
                break
            counts[index], size = count + 1, size + row
    return counts


def _size(parts: Sequence[MixPart], counts: Offsets, measure: str) -> int:
    return sum(part.copies.amount_of(count, measure) for part, count in zip(parts, counts.tolist(), strict=True))


def _check_weighted(parts: Sequence[MixPart], weighted: npt.NDArray[np.bool_], mix_by: str) -> None:
    for part, has_weight in zip(parts, weighted.tolist(), strict=True):
        if has_weight and not part.copies.whole(mix_by):
            what = mix_by.replace("_", " ")
            raise DataError(f"dataset {part.name!r} has a weight and no {what} for training; remove it from the mix")


def _check_copies(part: MixPart, copies: float) -> None:
    if copies * len(part.copies) > MOST_ROWS:
        key, value = part.amount or (REPEAT, 1)
        raise DataError(f"dataset {part.name!r}: {key}={value:g} makes more than {MOST_ROWS:,} rows; lower it")


def _check_taken(parts: Sequence[MixPart], counts: Offsets) -> None:
    for part, count in zip(parts, counts.tolist(), strict=True):
        if part.amount is not None and part.amount[0] != WEIGHT and not count:
            key, value = part.amount
            raise DataError(
                f"dataset {part.name!r}: {key}={value:g} takes no row of it; raise it, or remove the data set"
            )


def _check_rows(counts: Offsets) -> None:
    if counts.sum() > MOST_ROWS:
        raise DataError(f"the mix would have more than {MOST_ROWS:,} rows; make it smaller (total_rows, total_tokens)")
