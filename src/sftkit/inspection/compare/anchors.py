"""Anchors of sequences: short pieces of them that survive when other parts change.

Each anchor is the piece of six tokens with the smallest hash, so two sequences that share most pieces are likely to
have the same one (min-wise hashing: Broder, "On the resemblance and containment of documents", 1997).
"""

from __future__ import annotations

import numpy as np

from sftkit.core.rows import Mask, Offsets, Ragged
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
    filled = np.flatnonzero(ids.lengths)
    if len(ids.values) < _PIECE:
        return anchors
    pieces, is_whole = _hashed_pieces(ids)
    for anchor in range(ANCHORS):
        hashes = pieces * _FACTORS[_PIECE + anchor]
        hashes ^= hashes >> np.uint64(29)
        hashes[~is_whole] = np.uint64(NO_ANCHOR)
        anchors[anchor, filled] = np.minimum.reduceat(hashes, ids.offsets[:-1][filled])
    return anchors


def sequence_pieces(ids: Ragged) -> tuple[Keys, Offsets]:
    """Hash all pieces of sequences.

    Returns:
        The hashes, shape (pieces,), and the sequence that each is of.

    Example:
        >>> pieces, owners = sequence_pieces(Ragged.from_lists([[1, 2, 3], [1, 2, 3, 4, 5, 6, 7]]))
        >>> len(pieces), owners.tolist()
        (2, [1, 1])
    """
    if len(ids.values) < _PIECE:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    pieces, is_whole = _hashed_pieces(ids)
    return pieces[is_whole], np.repeat(np.arange(len(ids)), ids.lengths)[is_whole]


def _hashed_pieces(ids: Ragged) -> tuple[Keys, Mask]:
    """Hash the piece that begins at each token, and tell which of them end within their sequence, shape (tokens,)."""
    count = len(ids.values) - _PIECE + 1
    values = ids.values.astype(np.uint64) + np.uint64(1)
    pieces = np.zeros(len(values), np.uint64)
    for place in range(_PIECE):
        pieces[:count] += values[place : place + count] * _FACTORS[place]
    pieces ^= pieces >> np.uint64(31)
    filled = np.flatnonzero(ids.lengths)
    ends, starts = ids.offsets[1:][filled], ids.offsets[:-1][filled]
    is_whole = np.ones(len(values), np.bool_)
    for place in range(1, _PIECE):
        is_whole[np.maximum(ends - place, starts)] = False
    return pieces, is_whole
