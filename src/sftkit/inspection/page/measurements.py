"""Measures rows for pictures, and collects the rows that a sample is chosen from, in one pass over the shards.

What is held grows with the number of different lengths and of categories of rows, not with the number of rows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.audit.checks.packs import Packing
from sftkit.audit.expectations.expected import Expectations
from sftkit.core.rows import Offsets, Ragged
from sftkit.inspection.columns.column_layout import ColumnLayout, iter_row_groups, read_layout
from sftkit.inspection.columns.text_columns import text_lengths
from sftkit.inspection.columns.token_values import TokenColumns, split_packing, token_columns
from sftkit.inspection.page.message_counts import MessageFinder
from sftkit.inspection.page.row_candidates import CandidateCollector, RowPlace
from sftkit.shards.reading import ShardSet

_THREADS = min(4, os.cpu_count() or 1)

SHARE_BINS = 20
"""Bins of the trained share of a row: 0 to 5 %, and so on; the last one includes 100 %."""

_RARE = 50

FILL_BINS = 20
"""Bins of the fill of a pack, in the same way."""


@dataclass
class SplitMeasures:
    """Distributions over the rows of one split; over its sequences where rows are packed."""

    lengths: Counter[int] = field(default_factory=Counter)
    """Rows by length in tokens (characters for text)."""
    shares: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(SHARE_BINS, np.int64))
    """Rows by trained share, shape (SHARE_BINS,)."""
    untrained: int = 0
    """Rows without a trained token; they are in the first bin, too."""
    messages: Counter[int] = field(default_factory=Counter)
    """Rows by number of messages; 0 where no header was found. Empty if the headers are unknown."""
    orders: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Messages by the role before, `start` for the first message, and their own role."""
    fills: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(FILL_BINS, np.int64))
    """Packs by tokens / pack length, shape (FILL_BINS,)."""
    has_labels: bool = False
    """Whether it is known which tokens carry a loss."""

    def rare_orders(self) -> list[tuple[str, str]]:
        """Return the orders of roles that fewer than one message in 50 has, the rarest first."""
        total = sum(self.orders.values())
        rare = [order for order, messages in self.orders.items() if messages * _RARE < total]
        return sorted(rare, key=lambda order: (self.orders[order], order))

    def merge(self, other: SplitMeasures) -> None:
        """Add the counts of another part of the split."""
        self.lengths.update(other.lengths)
        self.messages.update(other.messages)
        self.orders.update(other.orders)
        self.shares += other.shares
        self.fills += other.fills
        self.untrained += other.untrained
        self.has_labels = self.has_labels or other.has_labels


@dataclass(frozen=True)
class Measurements:
    """What the pages of a report show beyond the summary."""

    splits: dict[str, SplitMeasures]
    candidates: CandidateCollector
    """Rows to choose a sample from."""


def measure(
    shards: ShardSet, fields: Sequence[str], expectations: Expectations, pack_lengths: dict[str, int], seed: int
) -> Measurements:
    """Read every shard once, one row group per thread in memory.

    Args:
        shards: the files to read.
        fields: names that a text column may have.
        expectations: the headers of messages.
        pack_lengths: for each split that is packed, the most tokens of a pack.
        seed: decides which rows are candidates for the sample.

    Raises:
        SourceError: a file cannot be read.
    """
    finder = MessageFinder.of(expectations)
    splits: dict[str, SplitMeasures] = {}
    candidates = CandidateCollector(seed)
    for split, paths in shards.splits.items():
        layouts = [read_layout(path, fields) for path in paths]
        task = partial(
            _measure_file,
            finder=finder,
            packing=split_packing(shards.manifest, split),
            pack_length=pack_lengths.get(split, 0),
            split=split,
            seed=seed,
        )
        measures = SplitMeasures()
        with ThreadPoolExecutor(_THREADS) as pool:
            for part, found in pool.map(task, layouts, range(len(layouts))):
                measures.merge(part)
                candidates.merge(found)
        splits[split] = measures
    return Measurements(splits, candidates)


def _measure_file(
    layout: ColumnLayout,
    file: int,
    *,
    finder: MessageFinder,
    packing: Packing,
    pack_length: int,
    split: str,
    seed: int,
) -> tuple[SplitMeasures, CandidateCollector]:
    measures, candidates = SplitMeasures(), CandidateCollector(seed)
    first = 0
    for group, table in enumerate(iter_row_groups(layout)):
        place = RowPlace(split, file, layout.path, group, first)
        if layout.tokens:
            _add_tokens(token_columns(table, layout), measures, candidates, place, finder, packing, pack_length)
        else:
            _add_text(table, layout, measures, candidates, place)
        first += table.num_rows
    return measures, candidates


def _add_text(
    table: pa.Table, layout: ColumnLayout, measures: SplitMeasures, candidates: CandidateCollector, place: RowPlace
) -> None:
    lengths = text_lengths(table, layout)
    _count(measures.lengths, lengths)
    candidates.add(place, lengths, None)


def _add_tokens(
    tokens: TokenColumns,
    measures: SplitMeasures,
    candidates: CandidateCollector,
    place: RowPlace,
    finder: MessageFinder,
    packing: Packing,
    pack_length: int,
) -> None:
    ids = tokens.ids
    packs = tokens.packs(packing)
    sequences = ids if packs is None else Ragged(ids.values, packs.offsets)
    lengths = sequences.lengths
    _count(measures.lengths, lengths)
    if packs is not None and pack_length:
        measures.fills += _bins(ids.lengths, np.full(len(ids), pack_length), FILL_BINS)
    trained = None
    if tokens.trained is not None:
        measures.has_labels = True
        trained = ids.count_per_row(tokens.trained)
        per_sequence = trained if packs is None else sequences.count_per_row(tokens.trained)
        measures.shares += _bins(per_sequence, lengths, SHARE_BINS)
        measures.untrained += int(np.count_nonzero(per_sequence == 0))
    if finder.is_usable:
        starts = finder.find(sequences)
        _count(measures.messages, starts.count_per_row(len(sequences)))
        for order, found in starts.orders().items():
            measures.orders[order] += len(found)
            if packs is None:
                candidates.add_order(place, order, found)
            else:
                candidates.add_order(place, order, packs.rows[found], packs.numbers[found])
    candidates.add(place, ids.lengths, trained, tokens.sources)


def _count(counts: Counter[int], values: Offsets) -> None:
    found, rows = np.unique(values, return_counts=True)
    counts.update(dict(zip(found.tolist(), rows.tolist(), strict=True)))


def _bins(parts: Offsets, wholes: Offsets, bins: int) -> npt.NDArray[np.int64]:
    """Count rows by part / whole, shape (bins,); rows without a whole are left out."""
    known = wholes > 0
    numbers = np.minimum(parts[known] * bins // wholes[known], bins - 1)
    return np.bincount(numbers, minlength=bins).astype(np.int64)
