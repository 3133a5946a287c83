"""Decides for the sequences of two splits which belong together, and how each pair or sequence differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sftkit.core.rows import Mask, Offsets
from sftkit.inspection.compare.anchors import ANCHORS, NO_ANCHOR
from sftkit.inspection.compare.closer_look import anchors_of, column_keys_of
from sftkit.inspection.compare.comparison import BY_COLUMN, BY_CONTENT, BY_POSITION
from sftkit.inspection.compare.keys import Keys
from sftkit.inspection.compare.matching import Pairs, match_equal, match_positions, match_unique
from sftkit.inspection.compare.scan import ScannedSplit


@dataclass
class PairedSplit:
    """The sequences of a split on both sides. `free_a` and `free_b` mark those that belong to no pair yet."""

    a: ScannedSplit
    b: ScannedSplit
    free_a: Mask = field(init=False)
    free_b: Mask = field(init=False)
    identical: int = 0
    same_position: int = 0
    """Identical sequences at the same position."""
    labels_differ: Pairs = field(default_factory=lambda: (np.zeros(0, np.int64), np.zeros(0, np.int64)))
    ids_differ: dict[str, Pairs] = field(default_factory=dict)
    """How the pairs were found -> pairs."""

    def __post_init__(self) -> None:
        self.free_a, self.free_b = np.ones(len(self.a), np.bool_), np.ones(len(self.b), np.bool_)

    def pair_identical(self) -> None:
        """Pair sequences with the same ids and labels: first those at the same position, then all others."""
        both = min(len(self.a), len(self.b))
        same = self.a.by_all[:both] == self.b.by_all[:both]
        same &= self.a.by_ids[:both] == self.b.by_ids[:both]
        self.free_a[:both] = ~same
        self.free_b[:both] = ~same
        self.same_position = int(np.count_nonzero(same))
        free_a, free_b = self.free
        keys_a = self.a.by_all[free_a], self.a.by_ids[free_a]
        pairs = match_equal(keys_a, (self.b.by_all[free_b], self.b.by_ids[free_b]))
        self.identical = self.same_position + len(self._take(free_a[pairs[0]], free_b[pairs[1]])[0])

    def pair_others(self, column: str | None) -> None:
        """Pair what is free: by equal ids, then by a column if one is given, else by position and content.

        Raises:
            SourceError: a file cannot be read, or has no such column.
        """
        free_a, free_b = self.free
        pairs = match_equal((self.a.by_ids[free_a],), (self.b.by_ids[free_b],))
        self.labels_differ = self._take(free_a[pairs[0]], free_b[pairs[1]])
        if column is not None:
            self._pair(BY_COLUMN, lambda: self._by_column(column))
            return
        if self._is_in_order(needs_evidence=True):
            self._pair(BY_POSITION, self._by_position)
        self._pair(BY_CONTENT, self._by_content)
        if BY_POSITION not in self.ids_differ and self._is_in_order(needs_evidence=False):
            self._pair(BY_POSITION, self._by_position)

    @property
    def free(self) -> Pairs:
        """The indices of the free sequences of both sides."""
        return np.flatnonzero(self.free_a), np.flatnonzero(self.free_b)

    def _pair(self, how: str, find: Callable[[], Pairs]) -> None:
        if self.free_a.any() and self.free_b.any():
            self.ids_differ[how] = self._take(*find())

    def _take(self, first: Offsets, second: Offsets) -> Pairs:
        self.free_a[first] = False
        self.free_b[second] = False
        return first, second

    def _is_in_order(self, *, needs_evidence: bool) -> bool:
        """Whether both sides have as many sequences, and most pairs are at the same position."""
        if len(self.a) != len(self.b):
            return False
        others = [self.labels_differ, *self.ids_differ.values()]
        same = self.same_position + sum(int(np.count_nonzero(first == second)) for first, second in others)
        total = self.identical + sum(len(first) for first, _ in others)
        return 2 * same >= total and (total > 0 or not needs_evidence)

    def _by_column(self, column: str) -> Pairs:
        free_a, free_b = self.free
        (keys_a, filled_a), (keys_b, filled_b) = (
            column_keys_of(self.a, free_a, column),
            column_keys_of(self.b, free_b, column),
        )
        pairs = match_equal((keys_a[filled_a],), (keys_b[filled_b],))
        return free_a[filled_a][pairs[0]], free_b[filled_b][pairs[1]]

    def _by_position(self) -> Pairs:
        return match_positions(self.free_a, self.free_b)

    def _by_content(self) -> Pairs:
        """Pair sequences by anchors that only one free sequence of each side has, anchor by anchor."""
        free_a, free_b = self.free
        anchors_a, anchors_b = anchors_of(self.a, free_a), anchors_of(self.b, free_b)
        rest_a, rest_b = np.arange(len(free_a)), np.arange(len(free_b))
        found: list[Pairs] = []
        for anchor in range(ANCHORS):
            first, second = match_unique(anchors_a[anchor][rest_a], anchors_b[anchor][rest_b], NO_ANCHOR)
            found.append((rest_a[first], rest_b[second]))
            rest_a, rest_b = np.delete(rest_a, first), np.delete(rest_b, second)
        pairs = np.concatenate([part for part, _ in found]), np.concatenate([part for _, part in found])
        order = np.argsort(pairs[0])
        return free_a[pairs[0][order]], free_b[pairs[1][order]]


def pair_moved(splits: list[PairedSplit]) -> dict[tuple[int, int], Pairs]:
    """Pair identical sequences that are free in different splits.

    Returns:
        Indices of the splits of A and of B -> pairs.
    """
    split_a, rows_a, keys_a = _free_keys([(split.a, split.free[0]) for split in splits])
    split_b, rows_b, keys_b = _free_keys([(split.b, split.free[1]) for split in splits])
    first, second = match_equal(keys_a, keys_b)
    moved: dict[tuple[int, int], Pairs] = {}
    for one, other in sorted(set(zip(split_a[first].tolist(), split_b[second].tolist(), strict=True))):
        chosen = (split_a[first] == one) & (split_b[second] == other)
        pairs = rows_a[first[chosen]], rows_b[second[chosen]]
        moved[one, other] = pairs
        splits[one].free_a[pairs[0]] = False
        splits[other].free_b[pairs[1]] = False
    return moved


def _free_keys(parts: list[tuple[ScannedSplit, Offsets]]) -> tuple[Offsets, Offsets, tuple[Keys, Keys]]:
    """Concatenate the splits (by index), the indices and the keys of the free sequences of all splits."""
    numbers = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
    rows = np.concatenate([rows for _, rows in parts])
    by_all = np.concatenate([split.by_all[rows] for split, rows in parts])
    return numbers, rows, (by_all, np.concatenate([split.by_ids[rows] for split, rows in parts]))
