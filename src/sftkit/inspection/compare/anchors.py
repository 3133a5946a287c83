"""Anchors of sequences: short pieces of them that survive when other parts change.

Each anchor is the piece of six tokens with the smallest hash, so two sequences that share most pieces are likely to
have the same one (min-wise hashing: Broder, "On the resemblance and containment of documents", 1997).
"""

from __future__ import annotations

import numpy as np

from sftkit.core.rows import Ragged
from sftkit.inspection.compare.keys import Keys

ANCHORS = 6
"""Anchors of a sequence, each by another hash."""

NO_ANCHOR = 2**64 - 1
"""The anchor of a sequence that is shorter than a piece."""

_PIECE = 6
_FACTORS: Keys = np.random.PCG64(0xA2C).random_raw(_PIECE + ANCHORS) | np.uint64(1)


def sequence_anchors(ids: Ragged) -> Keys:
    """Compute the anchors of sequences, uint64, shape (ANCHORS, sequences).

    Example:
        >>> changed = Ragged.from_lists([list(range(40)), [*range(20), 99, *range(21, 40)]])
        >>> first, second = sequence_anchors(changed).T
        >>> bool((first == second).any())
        True
    """
    anchors = np.full((ANCHORS, len(ids)), np.uint64(NO_ANCHOR))
    count = len(ids.values) - _PIECE + 1
    filled = np.flatnonzero(ids.lengths)
    if count < 1:
        return anchors
    values = ids.values.astype(np.uint64) + np.uint64(1)
    pieces = np.zeros(len(values), np.uint64)
    for place in range(_PIECE):
        pieces[:count] += values[place : place + count] * _FACTORS[place]
    pieces ^= pieces >> np.uint64(31)
    ends = ids.offsets[1:][filled]
    crosses = np.zeros(len(values), np.bool_)
    for place in range(1, _PIECE):
        crosses[np.maximum(ends - place, ids.offsets[:-1][filled])] = True
    for anchor in range(ANCHORS):
        hashes = pieces * _FACTORS[_PIECE + anchor]
        hashes ^= hashes >> np.uint64(29)
        hashes[crosses] = np.uint64(NO_ANCHOR)
        anchors[anchor, filled] = np.minimum.reduceat(hashes, ids.offsets[:-1][filled])
    return anchors
