"""Pairs the few sequences that share no anchor, by all pieces that they have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Mask, Offsets
from sftkit.inspection.compare.keys import Keys
from sftkit.inspection.compare.matching import Pairs

_MOST_ROUNDS = 16

_LEAST_SHARE = 8
"""A pair shares at least one in so many of the pieces that only it has: any two rows may share a frequent phrase."""


@dataclass(frozen=True)
class Pieces:
    """Pieces of the sequences of one side."""

    hashes: Keys
    """Shape (pieces,)."""
    owners: Offsets
    """The sequence that each piece is of, shape (pieces,)."""

    def take(self, which: Mask | Offsets) -> Pieces:
        """Return some pieces, given by a mask of shape (pieces,) or by their indices."""
        return Pieces(self.hashes[which], self.owners[which])

    def sorted(self) -> Pieces:
        """Return each piece once for each sequence, sorted."""
        order = np.lexsort((self.owners, self.hashes))
        found = self.take(order)
        is_new = np.ones(len(order), np.bool_)
        is_new[1:] = (found.hashes[1:] != found.hashes[:-1]) | (found.owners[1:] != found.owners[:-1])
        return found.take(is_new)

    def unique(self) -> Pieces:
        """Return the pieces that only one sequence has; they must be sorted."""
        is_new = np.ones(len(self.hashes) + 1, np.bool_)
        is_new[1:-1] = self.hashes[1:] != self.hashes[:-1]
        return self.take(is_new[1:] & is_new[:-1])

    def counts(self) -> Offsets:
        """Return the number of pieces of each sequence, shape (largest owner + 1,)."""
        return np.bincount(self.owners)


def match_pieces(a: Pieces, b: Pieces) -> Pairs:
    """Pair sequences that share a piece that no other free sequence of their side has.

    Of several candidates, those that share the most such pieces belong together. They must share an eighth of those of
    the sequence that has fewer. A pair takes its pieces away, which can make pieces of others unique, so this is
    repeated.

    Example:
        >>> one = Pieces(np.array([4, 5, 6, 7], np.uint64), np.array([0, 0, 0, 1]))
        >>> other = Pieces(np.array([7, 6, 5, 4], np.uint64), np.array([0, 0, 1, 1]))
        >>> [side.tolist() for side in match_pieces(one, other)]
        [[0, 1], [1, 0]]
    """
    a, b = a.sorted(), b.sorted()
    found: list[Pairs] = []
    for _ in range(_MOST_ROUNDS):
        one, other = a.unique(), b.unique()
        _, at_a, at_b = np.intersect1d(one.hashes, other.hashes, assume_unique=True, return_indices=True)
        pairs = _most_shared(one.owners[at_a], other.owners[at_b], one.counts(), other.counts())
        if not len(pairs[0]):
            break
        found.append(pairs)
        a, b = a.take(~np.isin(a.owners, pairs[0])), b.take(~np.isin(b.owners, pairs[1]))
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *(first for first, _ in found)]), np.concatenate([none, *(part for _, part in found)])


def _most_shared(first: Offsets, second: Offsets, of_a: Offsets, of_b: Offsets) -> Pairs:
    """Of candidates, one for each shared piece, return those that are each other's best.

    Args:
        first: sequences of A, shape (shared pieces,).
        second: those of B.
        of_a: the number of pieces of each sequence of A that no other one has.
        of_b: the same of B.
    """
    if not len(first):
        return first, second
    width = int(second.max()) + 1
    candidates, shared = np.unique(first * width + second, return_counts=True)
    first, second = np.divmod(candidates, width)
    enough = shared * _LEAST_SHARE >= np.minimum(of_a[first], of_b[second])
    order = np.argsort(-shared[enough], kind="stable")
    ranked = first[enough][order], second[enough][order]
    rank = np.arange(len(order))
    best = []
    for side in ranked:
        _, place, inverse = np.unique(side, return_index=True, return_inverse=True)
        best.append(place[inverse] == rank)
    mutual = best[0] & best[1]
    return ranked[0][mutual], ranked[1][mutual]
