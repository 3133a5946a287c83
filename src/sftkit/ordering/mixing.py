"""Mixes data sets: from row counts and sizes to the order of the rows of each split.

Without a key of a mix, training rows are concatenated. With `sampling`, they are interleaved as `datasets` does. With
the other keys, each data set contributes an amount (`sftkit.ordering.weights`), and the rows are arranged within each
stage (`sftkit.ordering.row_order`). Validation rows are always concatenated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from sftkit.config.schema.data_config import TOKENS, ProcessorConfig
from sftkit.config.schema.order_choice import BY_LENGTH, LENGTH_GROUPED, SHUFFLED, RowOrder, read_row_order
from sftkit.core.rows import Offsets
from sftkit.core.splits import TRAIN, VALIDATION
from sftkit.errors import DataError
from sftkit.ordering.copies import RowCopies
from sftkit.ordering.interleaving import interleave
from sftkit.ordering.row_order import arrange
from sftkit.ordering.splitting import Indices, MixSource, split_rows
from sftkit.ordering.weights import MixPart, find_amounts


@dataclass(frozen=True)
class MixedRows:
    """The rows of all splits in order, as indices into the concatenated rows of all data sets."""

    train: Indices
    validation: Indices
    candidates: Indices
    """The rows that splitting gave to training, each once."""
    stage_ends: tuple[int, ...] = ()
    """Where the stages end in `train`; () without stages."""
    wanted: Mapping[str, float] = field(default_factory=dict)
    """Name of a data set -> its share of the train split as the config asks for it; empty without a mix."""


def order_splits(parts: Sequence[MixSource], seed: int, stopping_strategy: str) -> dict[str, Indices]:
    """Return the rows of each split in order, without keys of a mix but `sampling`.

    Args:
        parts: the data sets.
        seed: of shuffling, splitting and mixing.
        stopping_strategy: as in `interleave`.

    Raises:
        DataError: a split, or a data set with a weight, would have no rows.
    """
    splits = list(split_rows(parts, seed))
    trains = [(split.source, split.train) for split in splits if split.train is not None]
    train = _sample(trains, seed, stopping_strategy)
    return {TRAIN: train, VALIDATION: _joined([split.validation for split in splits])}


def mix_rows(
    parts: Sequence[MixSource],
    processor: ProcessorConfig,
    sizes: Mapping[str, Offsets],
    numbers: npt.NDArray[np.float64] | None = None,
) -> MixedRows:
    """Split and mix data sets as a config asks for it.

    Args:
        parts: the data sets.
        processor: seed and keys of the mix.
        sizes: measure (`tokens`, `trained_tokens`) -> the size of each row of all data sets, shape (rows,).
        numbers: what `order: curriculum` sorts by, of each row of all data sets, shape (rows,).

    Raises:
        DataError: a split, or a data set in the mix, would have no rows.
    """
    splits = list(split_rows(parts, processor.seed))
    validation = _joined([split.validation for split in splits])
    trains = [(split.source, split.train) for split in splits if split.train is not None]
    candidates = _joined([rows for _, rows in trains])
    order = read_row_order(processor.order)
    keys = sizes[TOKENS] if order is not None and order.kind in (BY_LENGTH, LENGTH_GROUPED) else numbers
    if processor.stages or any(part.amount is not None for part, _ in trains):
        arranged = partial(arrange, order=order or RowOrder(SHUFFLED), keys=keys, seed=processor.seed)
        return _mix_amounts(trains, processor, sizes, arranged, MixedRows(candidates[:0], validation, candidates))
    train = _sample(trains, processor.seed, str(processor.sampling_stopping_strategy))
    if order is not None:
        train = arrange(train, order, keys, processor.seed, stage=0)
    wanted = {part.name: part.sampling for part, _ in trains if part.sampling is not None}
    return MixedRows(train, validation, candidates, wanted=wanted)


def _mix_amounts(
    trains: Sequence[tuple[MixSource, Indices]],
    processor: ProcessorConfig,
    sizes: Mapping[str, Offsets],
    arranged: Callable[..., Indices],
    split: MixedRows,
) -> MixedRows:
    """Take the amount of each data set, and have the rows of each stage arranged."""
    parts = [
        MixPart(
            part.name,
            RowCopies(rows, {measure: each[rows] for measure, each in sizes.items()}, processor.seed),
            part.amount,
        )
        for part, rows in trains
    ]
    amounts = find_amounts(parts, processor)
    stages = []
    starts = np.zeros(len(parts), np.int64)
    for number, ends in enumerate(amounts.ends):
        taken = [
            rows
            for part, start, stop in zip(parts, starts.tolist(), ends.tolist(), strict=True)
            for rows in part.copies.take_in_order(start, stop)
        ]
        stages.append(arranged(np.concatenate([*taken, np.arange(0)]), stage=number))
        starts = ends
    ends_of_stages = np.cumsum([len(rows) for rows in stages]).tolist() if processor.stages else ()
    wanted = {part.name: share for part, share in zip(parts, amounts.wanted.tolist(), strict=True)}
    return MixedRows(_joined(stages), split.validation, split.candidates, tuple(ends_of_stages), wanted)


def _sample(trains: Sequence[tuple[MixSource, Indices]], seed: int, stopping_strategy: str) -> Indices:
    """Interleave training rows by the `sampling` of the data sets; concatenate them if there is none."""
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
