"""Finds sequences of two data sets that belong together, by equal keys, each sequence once."""

from __future__ import annotations

import numpy as np

from sftkit.core.rows import Mask, Offsets
from sftkit.inspection.compare.keys import Keys

Pairs = tuple[Offsets, Offsets]
"""Indices in A and in B, of the same length."""

_SORTED_AT_ONCE = 1 << 21


def match_equal(a: tuple[Keys, ...], b: tuple[Keys, ...]) -> Pairs:
    """Pair equal keys: of n in A and m in B, the first min(n, m) of each, in order.

    Keys are sorted in parts, so that memory beyond the keys stays limited.

    Args:
        a: the columns of A's keys, each of shape (sequences of A,).
        b: those of B.

    Example:
        >>> one, other = np.array([7, 7, 8], np.uint64), np.array([9, 7], np.uint64)
        >>> [part.tolist() for part in match_equal((one,), (other,))]
        [[0], [1]]
    """
    count = len(a[0]) + len(b[0])
    buckets = np.uint64(max(1, count // _SORTED_AT_ONCE))
    if buckets == 1:
        return _match_sorted(a, b)
    in_a, in_b = a[0] % buckets, b[0] % buckets
    found = []
    for bucket in range(int(buckets)):
        rows_a, rows_b = np.flatnonzero(in_a == bucket), np.flatnonzero(in_b == bucket)
        first, second = _match_sorted(tuple(key[rows_a] for key in a), tuple(key[rows_b] for key in b))
        found.append((rows_a[first], rows_b[second]))
    return np.concatenate([first for first, _ in found]), np.concatenate([second for _, second in found])


def _match_sorted(a: tuple[Keys, ...], b: tuple[Keys, ...]) -> Pairs:
    count_a, count = len(a[0]), len(a[0]) + len(b[0])
    if not count_a or count == count_a:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    columns = [np.concatenate(column) for column in zip(a, b, strict=True)]
    order = np.lexsort(columns)  # stable: within a key, those of A come first, in order
    is_new = np.zeros(count, np.bool_)
    is_new[0] = True
    for column in columns:
        ordered = column[order]
        is_new[1:] |= ordered[1:] != ordered[:-1]
    key = np.cumsum(is_new) - 1
    is_b = order >= count_a
    of_a, of_b = np.bincount(key[~is_b], minlength=key[-1] + 1), np.bincount(key[is_b], minlength=key[-1] + 1)
    rank = np.arange(count) - np.flatnonzero(is_new)[key] - np.where(is_b, of_a[key], 0)
    is_paired = rank < np.minimum(of_a, of_b)[key]
    return order[is_paired & ~is_b], order[is_paired & is_b] - count_a


def match_unique(a: Keys, b: Keys, none: int) -> Pairs:
    """Pair keys that occur once in A and once in B; `none` is no key.

    Example:
        >>> one, other = np.array([7, 7, 8], np.uint64), np.array([8, 7], np.uint64)
        >>> [part.tolist() for part in match_unique(one, other, none=0)]
        [[2], [0]]
    """
    (values_a, rows_a), (values_b, rows_b) = _unique(a, none), _unique(b, none)
    _, in_a, in_b = np.intersect1d(values_a, values_b, assume_unique=True, return_indices=True)
    return rows_a[in_a], rows_b[in_b]


def _unique(keys: Keys, none: int) -> tuple[Keys, Offsets]:
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    single = np.ones(len(keys), np.bool_)
    repeats = ordered[1:] == ordered[:-1]
    single[1:] &= ~repeats
    single[:-1] &= ~repeats
    single &= ordered != np.uint64(none)
    return ordered[single], order[single]


def match_positions(free_a: Mask, free_b: Mask) -> Pairs:
    """Pair what is at the same position, where both sides are free; they have the same length."""
    places = np.flatnonzero(free_a & free_b)
    return places, places
