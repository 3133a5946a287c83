"""Counts rows and tokens of each source before and after splitting and mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.ordering.mixing import Indices
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.manifest import WrittenRows
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.writing.row_gatherer import SequenceSelection


@dataclass(frozen=True)
class MixCounts:
    """The rows of one source."""

    tokens_kept: int
    """Tokens of the rows that passed; 0 for text."""
    written: Mapping[str, WrittenRows]
    """What went into each split."""


def count_sources(
    plan: Plan,
    staged: Sequence[StagedUnit],
    orders: Mapping[str, Indices],
    sequences: Mapping[str, SequenceSelection],
) -> list[MixCounts]:
    """Count the rows of each source, in the order of `plan.files`.

    Args:
        plan: the plan.
        staged: the staged units, in the order of the rows.
        orders: the staged rows of each split, as indices into the rows of all units.
        sequences: what was written of them, for splits that have rows.
    """
    places = {id(file.file): number for number, file in enumerate(plan.files)}
    sources: list[int] = []  # of each part of a unit
    rows: list[int] = []
    for unit in staged:
        sources += [places[id(part.file)] for part in plan.units[unit.number].parts]
        rows += [file.rows for file in unit.files] or [unit.rows]
    ends = np.cumsum(rows)
    of_part = np.array(sources)
    sizes = np.concatenate([unit.sizes for unit in staged])
    passed = np.ones(len(sizes), np.bool_)
    base = 0
    for unit in staged:
        passed[base + unit.rows_removed_later] = False
        base += unit.rows
    are_tokens = all(unit.text_column is None for unit in staged if unit.rows)

    def count(chosen: Offsets, weights: np.ndarray[tuple[int], np.dtype[np.float64]] | None = None) -> list[int]:
        found = of_part[np.searchsorted(ends, chosen, side="right")]
        counts: list[int] = np.bincount(found, weights, len(plan.files)).astype(np.int64).tolist()
        return counts

    def tokens(chosen: Offsets, lengths: np.ndarray[tuple[int], np.dtype[np.int32]]) -> list[int]:
        return count(chosen, lengths.astype(np.float64)) if are_tokens else [0] * len(plan.files)

    kept = np.flatnonzero(passed)
    before = tokens(kept, sizes[kept])
    after = {
        split: list(zip(count(orders[split]), tokens(each.rows, each.sizes), strict=True))
        for split, each in sequences.items()
    }
    return [
        MixCounts(total, {split: WrittenRows(*counts[number]) for split, counts in after.items()})
        for number, total in enumerate(before)
    ]
