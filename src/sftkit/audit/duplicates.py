"""Rows with the same tokens, told by 64-bit digests: 8 bytes a row, whatever their length."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sftkit.rows import Offsets, Ragged

Digests = npt.NDArray[np.uint64]

_SEED = 0x5F7C17
_SHORTEST = 1 << 12


def digests_of(ids: Ragged) -> Digests:
    """A digest of each row's ids, uint64, shape (rows,): equal for equal rows.

    A multilinear hash (Lemire and Kaser, "Strongly universal string hashing is fast", 2014) with random weights by
    position: two different rows share a digest with a chance of less than 2^-46.
    """
    lengths = ids.lengths
    digests = lengths.astype(np.uint64)
    if not len(ids.values):
        return digests
    position = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], lengths)
    terms = _weights(_room(int(lengths.max())))[position]
    terms *= ids.values.astype(np.uint64) + np.uint64(1)
    filled = np.flatnonzero(lengths)
    digests[filled] += np.add.reduceat(terms, ids.offsets[filled])
    return digests


def repeated(digests: Digests) -> Offsets:
    """The rows whose digest an earlier row has, int64, ascending."""
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    return np.sort(order[1:][ordered[1:] == ordered[:-1]])


def _room(length: int) -> int:
    return max(_SHORTEST, 1 << (length - 1).bit_length())


@lru_cache(maxsize=2)
def _weights(length: int) -> Digests:
    """Odd random numbers; a longer list begins with the shorter one."""
    weights: Digests = np.random.PCG64(_SEED).random_raw(length) | np.uint64(1)
    return weights
