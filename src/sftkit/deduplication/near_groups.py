"""Groups of rows with similar signatures: for each row that is to be removed, the row that is kept instead."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Mask, Offsets
from sftkit.deduplication.banding import Banding
from sftkit.deduplication.minhash import Signatures
from sftkit.deduplication.word_hashes import mix

_ROUNDS = 64
"""With how many dissimilar rows of a bucket each row of it is compared, at most."""
_AT_ONCE = 1 << 16  # pairs

Pairs = tuple[Offsets, Offsets]
"""The earlier and the later row of each pair."""


def first_of_near(signatures: Signatures, compared: Mask, banding: Banding) -> Offsets:
    """Return, for each row, the index of the row that is kept instead of it: its own, or a smaller one.

    Rows that are connected by similar pairs form a group, and its first row is kept. Rows of the group that are not
    similar to that row are compared among each other again, so every row that is removed is similar to one that is
    kept.

    Takes about 100 bytes a row besides the signatures.

    Args:
        signatures: uint8, shape (rows, banding.hashes).
        compared: which rows are compared with others, shape (rows,).
        banding: which rows are similar.

    Returns:
        Indices, int64, shape (rows,).
    """
    first = np.arange(len(signatures))
    left = np.flatnonzero(compared)
    while len(left):
        groups = np.arange(len(signatures))
        for band in range(banding.bands):
            part = signatures[left, band * banding.width : (band + 1) * banding.width]
            groups = _joined(groups, _similar_pairs(signatures, left, _band_keys(part), banding))
        members = left[groups[left] != left]
        is_similar = _are_similar(signatures, groups[members], members, banding)
        first[members[is_similar]] = groups[members[is_similar]]
        left = members[~is_similar]
    return first


def _band_keys(part: Signatures) -> npt.NDArray[np.uint64]:
    """Return a key of each row of a band; rows with equal bytes have equal keys."""
    filled = np.zeros((len(part), -(-part.shape[1] // 8) * 8), np.uint8)
    filled[:, : part.shape[1]] = part
    words = filled.view("<u8").astype(np.uint64, copy=False)
    keys: npt.NDArray[np.uint64] = words[:, 0]
    for column in range(1, words.shape[1]):
        keys = mix(keys) + words[:, column]
    return keys


def _similar_pairs(signatures: Signatures, rows: Offsets, keys: npt.NDArray[np.uint64], banding: Banding) -> Pairs:
    """Find similar pairs in the buckets of a band, those of rows with equal keys.

    The rows of a bucket are compared with the first of it; those that are not similar to it with the first of them; and
    so on, up to 64 times. So buckets of any size take time in proportion to their rows.
    """
    order = np.argsort(keys, kind="stable")
    bucket = keys[order]
    follows = bucket[1:] == bucket[:-1]
    is_shared = np.zeros(len(keys), np.bool_)
    is_shared[1:] |= follows
    is_shared[:-1] |= follows
    members, bucket = rows[order[is_shared]], bucket[is_shared]
    del order
    ones, others = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for _ in range(_ROUNDS):
        begins = np.append(True, bucket[1:] != bucket[:-1])[: len(bucket)]
        leaders = members[np.maximum.accumulate(np.where(begins, np.arange(len(members)), 0))]
        leaders, members, bucket = leaders[~begins], members[~begins], bucket[~begins]
        if not len(members):
            break
        is_similar = _are_similar(signatures, leaders, members, banding)
        ones.append(leaders[is_similar])
        others.append(members[is_similar])
        members, bucket = members[~is_similar], bucket[~is_similar]
    return np.concatenate(ones), np.concatenate(others)


def _are_similar(signatures: Signatures, ones: Offsets, others: Offsets, banding: Banding) -> Mask:
    """Tell which pairs have enough equal bytes, some pairs at a time."""
    parts = [np.zeros(0, np.bool_)]
    for start in range(0, len(ones), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        matches = np.count_nonzero(signatures[ones[some]] == signatures[others[some]], axis=1)
        parts.append(matches >= banding.fewest_matches)
    return np.concatenate(parts)


def _joined(groups: Offsets, pairs: Pairs) -> Offsets:
    """Join the groups of the rows of each pair.

    Args:
        groups: the smallest row of the group of each row.
        pairs: rows whose groups are one.

    Returns:
        The groups afterwards.
    """
    ones, others = pairs
    while True:
        smaller, larger = np.minimum(groups[ones], groups[others]), np.maximum(groups[ones], groups[others])
        differ = smaller != larger
        if not differ.any():
            return groups
        ones, others = ones[differ], others[differ]
        groups = groups.copy()
        np.minimum.at(groups, larger[differ], smaller[differ])
        while (groups[groups] != groups).any():
            groups = groups[groups]
