"""Keys of sequences: two 64-bit hashes each, one of the ids, and one of the ids with their labels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Ids, Ragged

Keys = npt.NDArray[np.uint64]

_SEED = 0x53C0DE
_SHORTEST_TABLE = 1 << 12
_ID_FACTOR, _LABEL_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_WEIGHT_FACTOR = np.uint64(0x165667B19E3779F9)


def sequence_keys(ids: Ragged, labels: Ids | None, weights: Ids | None = None) -> tuple[Keys, Keys]:
    """Hash sequences, each hash uint64 of shape (sequences,).

    Multilinear hashes (Lemire and Kaser, "Strongly universal string hashing is fast", 2014) with a random weight per
    position. Takes about 50 bytes of memory per token.

    Args:
        ids: the sequences.
        labels: the label of each token, shape (tokens,); None to hash ids only.
        weights: a number for the loss weight of each token, 0 for the usual one, shape (tokens,); None if all are 0.

    Returns:
        A hash of the ids, and one of ids, labels and weights. Together they identify a sequence by 128 bits.

    Example:
        >>> ids = Ragged.from_lists([[1, 2], [1, 2]])
        >>> by_ids, by_all = sequence_keys(ids, np.array([-100, 2, -100, -100], np.int32))
        >>> bool(by_ids[0] == by_ids[1]), bool(by_all[0] == by_all[1])
        (True, False)
    """
    lengths = ids.lengths
    by_ids, by_all = lengths.astype(np.uint64), lengths.astype(np.uint64)
    if not len(ids.values):
        return by_ids, by_all
    filled = np.flatnonzero(lengths)
    starts = ids.offsets[filled]
    position = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], lengths)
    first, second = _weights(max(_SHORTEST_TABLE, 1 << (int(lengths.max()) - 1).bit_length()))
    values = ids.values.astype(np.uint64) + np.uint64(1)
    terms = first[position]
    terms *= values
    by_ids[filled] += np.add.reduceat(terms, starts)
    values *= _ID_FACTOR
    if labels is not None:
        values += (labels.astype(np.uint64) + np.uint64(1)) * _LABEL_FACTOR
    if weights is not None:
        values += weights.astype(np.uint64) * _WEIGHT_FACTOR
    np.take(second, position, out=terms)
    terms *= values
    by_all[filled] += np.add.reduceat(terms, starts)
    return by_ids, by_all


@lru_cache(maxsize=2)
def _weights(length: int) -> tuple[Keys, Keys]:
    """Odd random numbers. A longer list begins with the shorter one, so keys do not depend on the length."""
    first, second = (np.random.PCG64(_SEED + which).random_raw(length) | np.uint64(1) for which in range(2))
    return first, second
