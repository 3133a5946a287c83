"""Counts rows and tokens of each source before and after splitting and mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftkit.config.schema.data_config import TRAINED_TOKENS
from sftkit.core.rows import Offsets
from sftkit.core.splits import TRAIN
from sftkit.preprocessing.order_rows import OrderedRows, row_sizes
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.source_info import MixInfo, WrittenRows
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.writing.row_gatherer import SequenceSelection


@dataclass(frozen=True)
class MixCounts:
    """The rows of one source."""

    tokens_kept: int
    """Tokens of the rows that passed; 0 for text."""
    written: Mapping[str, WrittenRows]
    """What went into each split."""
    mix: MixInfo | None
    """None without a mix."""


def count_sources(
    plan: Plan, staged: Sequence[StagedUnit], ordered: OrderedRows, sequences: Mapping[str, SequenceSelection]
) -> list[MixCounts]:
    """Count the rows of each source, in the order of `plan.files`.

    Args:
        plan: the plan.
        staged: the staged units, in the order of the rows.
        ordered: the staged rows of each split.
        sequences: what was written of them, for splits that have rows.
    """
    rows = _SourceRows(plan, staged)
    sizes = np.concatenate([unit.sizes for unit in staged])
    passed = np.ones(len(sizes), np.bool_)
    base = 0
    for unit in staged:
        passed[base + unit.rows_removed_later] = False
        base += unit.rows
    kept = np.flatnonzero(passed)
    before = rows.tokens(kept, sizes[kept])
    after = {
        split: list(zip(rows.count(ordered.splits[split]), rows.tokens(each.rows, each.sizes), strict=True))
        for split, each in sequences.items()
    }
    written = [
        {split: WrittenRows(*counts[number]) for split, counts in after.items()} for number in range(len(before))
    ]
    mixes = _count_mix(plan, staged, ordered, rows, written) if ordered.wanted else [None] * len(before)
    return [MixCounts(*each) for each in zip(before, written, mixes, strict=True)]


class _SourceRows:
    """Which staged rows are of which source."""

    def __init__(self, plan: Plan, staged: Sequence[StagedUnit]) -> None:
        places = {id(file.file): number for number, file in enumerate(plan.files)}
        sources: list[int] = []  # of each part of a unit
        rows: list[int] = []
        for unit in staged:
            sources += [places[id(part.file)] for part in plan.units[unit.number].parts]
            rows += [file.rows for file in unit.files] or [unit.rows]
        self._ends, self._sources, self._count = np.cumsum(rows), np.array(sources), len(plan.files)
        self._are_tokens = all(unit.text_column is None for unit in staged if unit.rows)

    def of(self, chosen: Offsets) -> npt.NDArray[np.int64]:
        """Return the number of the source of some rows."""
        found: npt.NDArray[np.int64] = self._sources[np.searchsorted(self._ends, chosen, side="right")]
        return found

    def count(self, chosen: Offsets) -> list[int]:
        """Count rows by source."""
        counts: list[int] = np.bincount(self.of(chosen), minlength=self._count).tolist()
        return counts

    def tokens(self, chosen: Offsets, lengths: npt.NDArray[np.int32] | Offsets) -> list[int]:
        """Add up the tokens of rows by source; 0 for text."""
        if not self._are_tokens:
            return [0] * self._count
        sums: list[int] = (
            np.bincount(self.of(chosen), lengths.astype(np.float64), self._count).astype(np.int64).tolist()
        )
        return sums


def _count_mix(
    plan: Plan,
    staged: Sequence[StagedUnit],
    ordered: OrderedRows,
    rows: _SourceRows,
    written: Sequence[Mapping[str, WrittenRows]],
) -> list[MixInfo]:
    train, mix_by = ordered.splits[TRAIN], plan.config.dataprocessor.mix_by
    trained = row_sizes(plan, staged)[TRAINED_TOKENS]
    trained_tokens = rows.tokens(train, trained[train])
    in_train = [each.get(TRAIN, WrittenRows(0, 0)) for each in written]
    reached = trained_tokens if mix_by == TRAINED_TOKENS else [getattr(each, mix_by) for each in in_train]
    copies = np.bincount(train, minlength=len(trained))[ordered.candidates]
    source_of = rows.of(ordered.candidates)
    candidates = np.bincount(source_of, minlength=len(plan.files)).tolist()
    of_dataset: dict[str, int] = {}
    for file, count in zip(plan.files, candidates, strict=True):
        of_dataset[file.file.dataset] = of_dataset.get(file.file.dataset, 0) + count
    least, most = np.full(len(plan.files), np.iinfo(np.int64).max), np.zeros(len(plan.files), np.int64)
    np.minimum.at(least, source_of, copies)
    np.maximum.at(most, source_of, copies)
    whole = sum(reached) or 1
    return [
        MixInfo(
            wanted_share=round(
                ordered.wanted.get(file.file.dataset, 0.0) * count / (of_dataset[file.file.dataset] or 1), 6
            ),
            reached_share=round(part / whole, 6),
            copies_min=int(low) if count else 0,
            copies_max=int(high),
            trained_tokens=tokens,
        )
        for file, count, part, low, high, tokens in zip(
            plan.files, candidates, reached, least.tolist(), most.tolist(), trained_tokens, strict=True
        )
    ]
