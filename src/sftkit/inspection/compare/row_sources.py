"""Counts differences by source. The order of rows follows from the config, so a manifest tells which source each is of.

This holds for rows that are not packed: what goes into a pack depends on the lengths of all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftkit.config.binding import bind_config
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.mix_choices import amount_of
from sftkit.config.schema.option_values import FMS, PER_TURN
from sftkit.core.rows import Offsets
from sftkit.errors import DataError
from sftkit.inspection.compare.comparison import (
    IDS_DIFFER,
    LABELS_DIFFER,
    MOVED,
    ONLY_IN_A,
    ONLY_IN_B,
    KindCounts,
    SourceComparison,
)
from sftkit.inspection.compare.matching import Pairs
from sftkit.inspection.compare.pairing import PairedSplit
from sftkit.ordering.mixing import order_splits
from sftkit.ordering.split_sizes import split_of
from sftkit.ordering.splitting import MixSource
from sftkit.shards.manifest import Manifest

Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class RowSources:
    """The sources of the rows of a data set."""

    names: tuple[tuple[str, str], ...]
    """(data set, path) of each source."""
    splits: Mapping[str, Numbers]
    """Split -> the source of each of its rows, an index into `names`, shape (rows,)."""
    kept: Mapping[str, Offsets]
    """Split -> the index of each of its rows among those kept of its source, shape (rows,)."""
    complete: tuple[bool, ...]
    """The sources of which all rows were kept."""

    def reference(self, split: str, row: int) -> str:
        """Return the source of a row as `path:row`, or only its path if rows of the source were removed."""
        number = int(self.splits[split][row])
        path = self.names[number][1]
        return f"{path}:{int(self.kept[split][row]) + 1}" if self.complete[number] else path


def find_row_sources(manifest: Manifest | None) -> RowSources | None:
    """Return the source of each row of a data set; None where this is unknown: without a manifest, and in packs.

    The rows are put into order again as `preprocess` does, from the row counts of the sources and the config. A mix by
    other keys than `sampling`, or an `order`, may depend on the rows themselves, so nothing is known about it.
    """
    if manifest is None or any(split.pack_length is not None for split in manifest.splits.values()):
        return None
    if manifest.rows_added and manifest.adds_rows == PER_TURN:
        return None  # which rows are split off depends on how many each conversation became
    parts = []
    for keys in manifest.config.get("datasets") or ():
        dataset = bind_config(DatasetConfig, keys, []) if isinstance(keys, Mapping) else None
        if dataset is None or amount_of(dataset) is not None:
            return None
        rows = sum(source.rows_kept for source in manifest.sources if source.dataset == dataset.name)
        try:
            split = split_of(dataset, rows)
        except DataError:
            return None
        is_fms = manifest.config.get("compat") == FMS
        parts.append(MixSource(dataset.name, rows, dataset.sampling, split, dataset.shuffle, is_fms))
    processor = manifest.config.get("dataprocessor")
    if not parts or not isinstance(processor, Mapping) or processor.get("stages") or processor.get("order"):
        return None
    try:
        orders = order_splits(parts, int(processor["seed"]), str(processor["sampling_stopping_strategy"]))
    except (DataError, KeyError, ValueError, TypeError):  # of another version, or edited
        return None
    ends = np.cumsum([source.rows_kept for source in manifest.sources])
    starts = np.concatenate([[0], ends]).astype(np.int64)
    found: dict[str, Numbers] = {}
    kept: dict[str, Offsets] = {}
    for name, info in manifest.splits.items():
        order = orders.get(name)
        if order is None or len(order) != info.rows:
            return None
        found[name] = np.searchsorted(ends, order, side="right").astype(np.int32)
        kept[name] = np.asarray(order, np.int64) - starts[found[name]]
        written = [source.written[name].rows for source in manifest.sources if name in source.written]
        if written and np.bincount(found[name], minlength=len(ends)).tolist() != written:
            return None  # ordered by another version
    names = tuple((source.dataset, source.path) for source in manifest.sources)
    complete = tuple(source.rows_kept == source.rows_read for source in manifest.sources)
    return RowSources(names, found, kept, complete)


def compare_sources(
    splits: Sequence[PairedSplit],
    moved: Mapping[tuple[int, int], Pairs],
    a: Manifest | None,
    b: Manifest | None,
) -> tuple[SourceComparison, ...]:
    """Count how sequences compare, by source; () where neither side knows the sources of its rows.

    Args:
        splits: the paired sequences.
        moved: those that are in different splits.
        a: the manifest of A.
        b: that of B.
    """
    counter = _Counter(find_row_sources(a), find_row_sources(b), splits)
    for (one, other), pairs in moved.items():
        counter.add(MOVED, (one, pairs[0]), (other, pairs[1]))
    for number, split in enumerate(splits):
        counter.add(LABELS_DIFFER, (number, split.labels_differ[0]), (number, split.labels_differ[1]))
        for pairs in split.ids_differ.values():
            counter.add(IDS_DIFFER, (number, pairs[0]), (number, pairs[1]))
        counter.add(ONLY_IN_A, (number, split.free[0]), None)
        counter.add(ONLY_IN_B, None, (number, split.free[1]))
    return counter.result()


class _Counter:
    """Adds up sequences by source. A pair counts for the source of A, or for that of B if that of A is unknown."""

    def __init__(self, a: RowSources | None, b: RowSources | None, splits: Sequence[PairedSplit]) -> None:
        self._sides = [self._numbers(a, [split.a.name for split in splits], [len(split.a) for split in splits])]
        self._sides.append(self._numbers(b, [split.b.name for split in splits], [len(split.b) for split in splits]))
        self._names = [side.names if side is not None else () for side in (a, b)]
        self._counts: dict[tuple[str, str], KindCounts] = {}
        for side, (numbers, names) in enumerate(zip(self._sides, self._names, strict=True)):
            for known in numbers if side == 0 or a is None else ():
                self._add("identical", known, names)

    @staticmethod
    def _numbers(sources: RowSources | None, names: Sequence[str], rows: Sequence[int]) -> list[Numbers | None]:
        found = [sources.splits.get(name) if sources is not None else None for name in names]
        return [
            each if each is not None and len(each) == count else None for each, count in zip(found, rows, strict=True)
        ]

    def add(self, kind: str, a: tuple[int, Offsets] | None, b: tuple[int, Offsets] | None) -> None:
        """Count sequences, given by the index of their split and their indices in it, and not as identical any more."""
        for side, place in enumerate((a, b)):
            known = self._sides[side][place[0]] if place is not None else None
            if place is None or known is None:
                continue
            numbers = known[place[1]]
            self._add(kind, numbers, self._names[side])
            if side == 0 or not self._names[0]:
                self._add("identical", numbers, self._names[side], sign=-1)
            return

    def _add(self, kind: str, numbers: Numbers | None, names: Sequence[tuple[str, str]], sign: int = 1) -> None:
        if numbers is None:
            return
        for name, count in zip(names, np.bincount(numbers, minlength=len(names)).tolist(), strict=True):
            self._counts[name] = self._counts.get(name, KindCounts()) + KindCounts(**{kind: sign * count})

    def result(self) -> tuple[SourceComparison, ...]:
        """Return the sources that have differences, in the order of the manifests."""
        return tuple(SourceComparison(*name, counts) for name, counts in self._counts.items() if counts.differences)
