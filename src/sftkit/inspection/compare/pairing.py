"""Decides for the sequences of two splits which belong together, and how each pair or sequence differs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from sftkit.core.progress import Progress, progress_stage
from sftkit.core.rows import Mask, Offsets
from sftkit.inspection.compare.anchors import ANCHORS, NO_ANCHOR
from sftkit.inspection.compare.closer_look import column_keys_of, find_anchors, find_pieces
from sftkit.inspection.compare.comparison import BY_COLUMN, BY_CONTENT, BY_POSITION
from sftkit.inspection.compare.keys import Keys
from sftkit.inspection.compare.matching import Pairs, join_pairs, match_equal, match_positions, match_unique
from sftkit.inspection.compare.pieces import match_pieces
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
        keys_a, keys_b = (self.a.by_all, self.a.by_ids), (self.b.by_all, self.b.by_ids)
        self.identical = self.same_position
        for pairs in match_equal(keys_a, keys_b, self.free_a, self.free_b):
            self.identical += len(self._take(*pairs)[0])

    def pair_others(self, column: str | None, progress: Progress) -> None:
        """Pair what is free: by equal ids, then by a column if one is given, else by position and content.

        Args:
            column: the column.
            progress: receives sequences that are read again.

        Raises:
            SourceError: a file cannot be read, or has no such column.
        """
        pairs = match_equal((self.a.by_ids,), (self.b.by_ids,), self.free_a, self.free_b)
        self.labels_differ = self._take(*join_pairs(pairs))
        if column is not None:
            self._pair(BY_COLUMN, lambda: self._by_column(column))
            return
        if self._is_in_order(needs_evidence=True):
            self._pair(BY_POSITION, self._by_position)
        self._pair(BY_CONTENT, lambda: self._by_content(progress))
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
        pairs = join_pairs(match_equal((keys_a,), (keys_b,), filled_a, filled_b))
        return free_a[pairs[0]], free_b[pairs[1]]

    def _by_position(self) -> Pairs:
        return match_positions(self.free_a, self.free_b)

    def _by_content(self, progress: Progress) -> Pairs:
        """Pair sequences by anchors that only one free sequence of each side has, anchor by anchor, then by pieces."""
        wanted_a, wanted_b = self.free
        rest_a, rest_b = np.ones(len(wanted_a), np.bool_), np.ones(len(wanted_b), np.bool_)
        found: list[Pairs] = []

        def add(first: Offsets, second: Offsets) -> None:
            rest_a[first] = False
            rest_b[second] = False
            found.append((wanted_a[first], wanted_b[second]))

        with (
            progress_stage(progress, "pairing by content", len(wanted_a) + len(wanted_b)),
            closing(find_anchors(self.a, wanted_a, progress)) as anchors_a,
            closing(find_anchors(self.b, wanted_b, progress)) as anchors_b,
        ):
            for number in range(ANCHORS):
                keys = anchors_a.read(number), anchors_b.read(number)
                for pairs in match_unique(*keys, NO_ANCHOR, rest_a, rest_b):
                    add(*pairs)
        found.append(self._by_pieces(wanted_a[rest_a], wanted_b[rest_b], progress))
        return join_pairs(iter(found))

    def _by_pieces(self, rest_a: Offsets, rest_b: Offsets, progress: Progress) -> Pairs:
        """Pair sequences by all of their pieces, if these are not too many; indices are ascending."""
        none = rest_a[:0], rest_b[:0]
        if not (len(rest_a) and len(rest_b)):
            return none
        with progress_stage(progress, "pairing the rest", len(rest_a) + len(rest_b)):
            pieces_a = find_pieces(self.a, rest_a, progress)
            pieces_b = find_pieces(self.b, rest_b, progress) if pieces_a is not None else None
        if pieces_a is None or pieces_b is None:
            return none
        first, second = match_pieces(pieces_a, pieces_b)
        return rest_a[first], rest_b[second]


def pair_moved(splits: list[PairedSplit]) -> dict[tuple[int, int], Pairs]:
    """Pair identical sequences that are free in different splits.

    Returns:
        Indices of the splits of A and of B -> pairs.
    """
    if len(splits) < 2:
        return {}
    split_a, rows_a, keys_a = _free_keys([(split.a, split.free[0]) for split in splits])
    split_b, rows_b, keys_b = _free_keys([(split.b, split.free[1]) for split in splits])
    first, second = join_pairs(match_equal(keys_a, keys_b))
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
