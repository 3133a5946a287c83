"""Keys of rows, equal for equal rows, and the groups of rows with equal keys.

A key is a BLAKE2b digest of 128 bits: even of 10^12 different rows, two have the same key with a probability below
10^-14. Its bytes do not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Mask, Offsets, Ragged

Keys = npt.NDArray[np.uint64]
"""Keys of rows, shape (rows, 2)."""

_KEY_BYTES = 16


def token_keys(columns: Sequence[Ragged]) -> Keys:
    """Return the key of each row of some token columns; rows without tokens have the key 0.

    Example:
        >>> keys = token_keys([Ragged.from_lists([[1, 2], [1], [1, 2], []])])
        >>> first_of_equal(keys, keys.any(axis=1)).tolist()
        [0, 1, 0, 3]
    """
    parts = [(column.values.astype("<i4", copy=False), column.offsets.tolist()) for column in columns]
    digests = bytearray()
    for row in range(len(columns[0])):
        digest = blake2b(digest_size=_KEY_BYTES)
        length = 0
        for values, offsets in parts:
            length += offsets[row + 1] - offsets[row]
            digest.update(values[offsets[row] : offsets[row + 1]].data)
        digests += digest.digest() if length else bytes(_KEY_BYTES)
    return _as_keys(digests)


def text_keys(rows: Sequence[Sequence[str]]) -> Keys:
    """Return the key of each row, given as one or more texts; rows of empty texts have the key 0.

    Where one text ends and the next begins matters.

    Example:
        >>> keys = text_keys([["a", "b"], ["ab", ""], ["a", "b"], [""], [""]])
        >>> first_of_equal(keys, keys.any(axis=1)).tolist()
        [0, 1, 0, 3, 4]
    """
    digests = bytearray()
    for texts in rows:
        if not any(texts):
            digests += bytes(_KEY_BYTES)
            continue
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        lengths = [len(text).to_bytes(8, "little") for text in encoded]
        digests += blake2b(b"".join([*lengths, *encoded]), digest_size=_KEY_BYTES).digest()
    return _as_keys(digests)


def first_of_equal(keys: Keys, compared: Mask) -> Offsets:
    """Return, for each row, the index of the first row with the same key, int64, shape (rows,).

    Takes about 40 bytes a row besides the keys.

    Args:
        keys: the key of each row.
        compared: which rows are compared with others, shape (rows,).
    """
    first = np.arange(len(keys))
    order = np.argsort(keys[:, 0], kind="stable")
    ordered = keys[order, 0]
    follows = ordered[1:] == ordered[:-1]
    is_shared = np.zeros(len(keys), np.bool_)
    is_shared[1:] |= follows
    is_shared[:-1] |= follows
    rows = order[is_shared]  # all rows but these are alone
    rows = rows[compared[rows]]
    rows = rows[np.lexsort((keys[rows, 1], keys[rows, 0]))]  # stable, so the first row of each group stays first
    begins = np.append(True, (keys[rows[1:]] != keys[rows[:-1]]).any(axis=1))[: len(rows)]
    starts = np.flatnonzero(begins)
    first[rows] = np.repeat(rows[starts], np.diff(np.append(starts, len(rows))))
    return first


def _as_keys(digests: bytearray) -> Keys:
    return np.frombuffer(bytes(digests), "<u8").astype(np.uint64, copy=False).reshape(-1, 2)
