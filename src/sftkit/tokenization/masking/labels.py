"""Labels of tokens: their ids where they carry a loss, -100 elsewhere."""

from __future__ import annotations

import numpy as np

from sftkit.core.rows import IGNORE_INDEX, Ids, Mask, Offsets, Ragged


def labels_after_prefix(ids: Ragged, prefixes: Offsets) -> Ragged:
    """Train all tokens of each row after its first `prefixes[i]` tokens.

    Example:
        >>> labels_after_prefix(Ragged.from_lists([[5, 6, 7], [8]]), np.array([2, 0])).values.tolist()
        [-100, -100, 7, 8]
    """
    position = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], ids.lengths)
    return labels_from_mask(ids, position >= np.repeat(prefixes, ids.lengths))


def labels_everywhere(ids: Ragged) -> Ragged:
    """Train every token."""
    return Ragged(ids.values, ids.offsets)


def labels_from_mask(ids: Ragged, trained: Mask) -> Ragged:
    """Train the tokens where `trained` (bool, shape (total tokens,)) is true."""
    values: Ids = np.where(trained, ids.values, np.int32(IGNORE_INDEX)).astype(np.int32, copy=False)
    return Ragged(values, ids.offsets)
