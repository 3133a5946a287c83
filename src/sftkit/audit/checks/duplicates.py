"""Rows with the same tokens, told by 64-bit digests: 8 bytes a row, whatever their length."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Ids, Offsets, Ragged

Digests = npt.NDArray[np.uint64]

_SEED = 0x5F7C17
_SHORTEST = 1 << 12
_AT_ONCE = 1 << 20  # rows, or tokens of one
_KINDS = np.uint64(1 << 24)  # of digests, by their lowest bits


def row_digests(ids: Ragged) -> Digests:
    """A digest of each row's ids, uint64, shape (rows,): equal for equal rows.

    A multilinear hash (Lemire and Kaser, "Strongly universal string hashing is fast", 2014) with random weights by
    position: two different rows share a digest with a chance of less than 2^-46.
    """
    long = ids.lengths > _AT_ONCE
    if not long.any():
        return _together(ids)
    digests = np.empty(len(ids), np.uint64)
    digests[~long] = _together(ids.filter(~long))
    digests[long] = [_piece_by_piece(ids[row]) for row in np.flatnonzero(long).tolist()]
    return digests


def _together(ids: Ragged) -> Digests:
    """Digests of rows that are not long: memory of some 30 bytes a token."""
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


def _piece_by_piece(row: Ids) -> np.uint64:
    """The digest of a long row."""
    weights = np.random.PCG64(_SEED)
    digest = np.array(len(row), np.uint64)
    for start in range(0, len(row), _AT_ONCE):
        piece = row[start : start + _AT_ONCE].astype(np.uint64) + np.uint64(1)
        digest += (piece * (weights.random_raw(len(piece)) | np.uint64(1))).sum(dtype=np.uint64)
    return np.uint64(digest)


def repeated_rows(digests: Digests) -> Offsets:
    """The rows whose digest an earlier row has, int64, ascending.

    Takes memory for a copy of the digests, and for the rows that share theirs with another.
    """
    ordered = np.sort(digests)  # three times as fast as `argsort`, which is left to few rows
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    if not len(shared):
        return np.zeros(0, np.int64)
    likely = np.zeros(_KINDS, np.bool_)
    likely[shared % _KINDS] = True
    pieces = range(0, len(digests), _AT_ONCE)
    rows = np.concatenate([at + np.flatnonzero(likely[digests[at : at + _AT_ONCE] % _KINDS]) for at in pieces])
    some = digests[rows]
    order = np.argsort(some, kind="stable")
    some = some[order]
    return np.sort(rows[order[1:][some[1:] == some[:-1]]])


def _room(length: int) -> int:
    return max(_SHORTEST, 1 << (length - 1).bit_length())


@lru_cache(maxsize=2)
def _weights(length: int) -> Digests:
    """Odd random numbers; a longer list begins with the shorter one."""
    weights: Digests = np.random.PCG64(_SEED).random_raw(length) | np.uint64(1)
    return weights
