"""Finds sequences of two data sets that belong together, by equal keys, each sequence once.

Keys are divided into parts by their hash, and the parts are sorted one after the other, so that memory beyond the keys
stays limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Mask, Offsets
from sftkit.inspection.compare.keys import Keys

Pairs = tuple[Offsets, Offsets]
"""Indices in A and in B, of the same length."""

Part = npt.NDArray[np.uint16]

_SORTED_AT_ONCE = 1 << 21
_MOST_PARTS = 1 << 15
_NO_PART = np.uint16(2**16 - 1)
_CHUNK = 1 << 20
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def match_equal(
    a: tuple[Keys, ...], b: tuple[Keys, ...], free_a: Mask | None = None, free_b: Mask | None = None
) -> Iterator[Pairs]:
    """Pair equal keys: of n in A and m in B, the first min(n, m) of each, in order.

    Args:
        a: the columns of A's keys, each of shape (sequences of A,).
        b: those of B.
        free_a: which keys of A may be paired, shape (sequences of A,); None for all. May change after the first pairs.
        free_b: the same of B.

    Yields:
        The pairs of one part of the keys.

    Example:
        >>> one, other = np.array([7, 7, 8], np.uint64), np.array([9, 7], np.uint64)
        >>> [[side.tolist() for side in pairs] for pairs in match_equal((one,), (other,))]
        [[[0], [1]]]
    """
    yield from _in_parts(a, b, free_a, free_b, _match_sorted)


def match_unique(a: Keys, b: Keys, none: int, free_a: Mask, free_b: Mask) -> Iterator[Pairs]:
    """Pair keys that occur once among the free ones in A, and once in B; `none` is no key. Yields as `match_equal`.

    Example:
        >>> one, other = np.array([7, 7, 8], np.uint64), np.array([8, 7], np.uint64)
        >>> all_of = np.ones(3, np.bool_)
        >>> [[side.tolist() for side in pairs] for pairs in match_unique(one, other, 0, all_of, all_of[:2])]
        [[[2], [0]]]
    """

    def match(one: tuple[Keys, ...], other: tuple[Keys, ...]) -> Pairs:
        return _match_single(one[0], other[0], np.uint64(none))

    yield from _in_parts((a,), (b,), free_a, free_b, match)


def match_positions(free_a: Mask, free_b: Mask) -> Pairs:
    """Pair what is at the same position, where both sides are free; they have the same length."""
    places = np.flatnonzero(free_a & free_b)
    return places, places


def join_pairs(parts: Iterator[Pairs]) -> Pairs:
    """Concatenate the pairs of all parts."""
    found = list(parts)
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *(first for first, _ in found)]), np.concatenate([none, *(part for _, part in found)])


def _in_parts(
    a: tuple[Keys, ...],
    b: tuple[Keys, ...],
    free_a: Mask | None,
    free_b: Mask | None,
    match: Callable[[tuple[Keys, ...], tuple[Keys, ...]], Pairs],
) -> Iterator[Pairs]:
    parts = min(_MOST_PARTS, max(1, (len(a[0]) + len(b[0])) // _SORTED_AT_ONCE))
    in_a, in_b = _parts_of(a[0], free_a, parts), _parts_of(b[0], free_b, parts)
    for part in range(parts):
        rows_a, rows_b = np.flatnonzero(in_a == part), np.flatnonzero(in_b == part)
        if len(rows_a) and len(rows_b):
            first, second = match(tuple(key[rows_a] for key in a), tuple(key[rows_b] for key in b))
            yield rows_a[first], rows_b[second]


def _parts_of(keys: Keys, free: Mask | None, parts: int) -> Part:
    """Return the part of each key, the same for equal keys; `_NO_PART` for those that are not free."""
    found = np.zeros(len(keys), np.uint16)
    for start in range(0, len(keys) if parts > 1 else 0, _CHUNK):
        mixed = keys[start : start + _CHUNK] * _FACTOR >> np.uint64(32)
        found[start : start + _CHUNK] = mixed * np.uint64(parts) >> np.uint64(32)
    if free is not None:
        found[~free] = _NO_PART
    return found


def _match_sorted(a: tuple[Keys, ...], b: tuple[Keys, ...]) -> Pairs:
    count_a, count = len(a[0]), len(a[0]) + len(b[0])
    columns = [np.concatenate(column) for column in zip(a, b, strict=True)]
    order = np.argsort(columns[0], kind="stable")  # within a key, those of A come first, in order
    is_new = _changes(columns[0], order)
    if any((_changes(column, order) & ~is_new).any() for column in columns[1:]):  # a collision of the first hash
        order = np.lexsort(columns)
        is_new = np.logical_or.reduce([_changes(column, order) for column in columns])
    key = np.cumsum(is_new) - 1
    is_b = order >= count_a
    of_a, of_b = np.bincount(key[~is_b], minlength=key[-1] + 1), np.bincount(key[is_b], minlength=key[-1] + 1)
    rank = np.arange(count) - np.flatnonzero(is_new)[key] - np.where(is_b, of_a[key], 0)
    is_paired = rank < np.minimum(of_a, of_b)[key]
    return order[is_paired & ~is_b], order[is_paired & is_b] - count_a


def _match_single(a: Keys, b: Keys, none: np.uint64) -> Pairs:
    """Pair keys that occur twice in all, first in A and then in B."""
    keys = np.concatenate([a, b])
    order = np.argsort(keys, kind="stable")
    is_new = np.append(_changes(keys, order), True)
    twice = is_new[:-2] & ~is_new[1:-1] & is_new[2:]
    first, second = order[:-1][twice], order[1:][twice]
    fits = (first < len(a)) & (second >= len(a)) & (keys[first] != none)
    return first[fits], second[fits] - len(a)


def _changes(keys: Keys, order: Offsets) -> Mask:
    """Return where, in an order, a key differs from the one before it; the first one does."""
    ordered = keys[order]
    changes = np.ones(len(keys), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=changes[1:])
    return changes
