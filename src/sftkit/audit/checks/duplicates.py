"""Find rows with the same tokens by 64-bit digests: 8 bytes a row, whatever their length."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Ids, Offsets, Ragged

Digests = npt.NDArray[np.uint64]

_SEED = 0x5F7C17
_SHORTEST = 1 << 12
_AT_ONCE = 1 << 20  # rows, or tokens of one
_BUCKETS = np.uint64(1 << 24)  # of digests, by their lowest bits


def row_digests(ids: Ragged) -> Digests:
    """Compute a digest of the ids of each row, uint64, shape (rows,). Equal rows have equal digests.

    A multilinear hash (Lemire and Kaser, "Strongly universal string hashing is fast", 2014) with one random weight per
    position. Two different rows have the same digest with a probability below 2^-46.

    Example:
        >>> digests = row_digests(Ragged.from_lists([[1, 2], [3], [1, 2]]))
        >>> bool(digests[0] == digests[2]), bool(digests[0] == digests[1])
        (True, False)
    """
    long = ids.lengths > _AT_ONCE
    if not long.any():
        return _digests_of_short_rows(ids)
    digests = np.empty(len(ids), np.uint64)
    digests[~long] = _digests_of_short_rows(ids.filter(~long))
    digests[long] = [_digest_of_long_row(ids[row]) for row in np.flatnonzero(long).tolist()]
    return digests


def _digests_of_short_rows(ids: Ragged) -> Digests:
    """Digests of short rows, all at once; takes about 30 bytes of memory per token."""
    lengths = ids.lengths
    digests = lengths.astype(np.uint64)
    if not len(ids.values):
        return digests
    position = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], lengths)
    terms = _weights(_table_size(int(lengths.max())))[position]
    terms *= ids.values.astype(np.uint64) + np.uint64(1)
    filled = np.flatnonzero(lengths)
    digests[filled] += np.add.reduceat(terms, ids.offsets[filled])
    return digests


def _digest_of_long_row(row: Ids) -> np.uint64:
    """The digest of a long row, computed in pieces."""
    weights = np.random.PCG64(_SEED)
    digest = np.array(len(row), np.uint64)
    for start in range(0, len(row), _AT_ONCE):
        piece = row[start : start + _AT_ONCE].astype(np.uint64) + np.uint64(1)
        digest += (piece * (weights.random_raw(len(piece)) | np.uint64(1))).sum(dtype=np.uint64)
    return np.uint64(digest)


def repeated_rows(digests: Digests) -> Offsets:
    """Find the rows whose digest an earlier row has, int64, ascending.

    Needs memory for one copy of the digests and for the rows that share theirs with another row.
    """
    ordered = np.sort(digests)  # three times as fast as `argsort`, which then sorts few rows
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    if not len(shared):
        return np.zeros(0, np.int64)
    may_repeat = np.zeros(_BUCKETS, np.bool_)
    may_repeat[shared % _BUCKETS] = True
    pieces = range(0, len(digests), _AT_ONCE)
    rows = np.concatenate([at + np.flatnonzero(may_repeat[digests[at : at + _AT_ONCE] % _BUCKETS]) for at in pieces])
    some = digests[rows]
    order = np.argsort(some, kind="stable")
    some = some[order]
    return np.sort(rows[order[1:][some[1:] == some[:-1]]])


def _table_size(length: int) -> int:
    return max(_SHORTEST, 1 << (length - 1).bit_length())


@lru_cache(maxsize=2)
def _weights(length: int) -> Digests:
    """Odd random numbers. A longer list begins with the shorter one, so digests do not depend on the length."""
    weights: Digests = np.random.PCG64(_SEED).random_raw(length) | np.uint64(1)
    return weights
