"""Arranges the rows of the train split, or of one of its stages: shuffled, or sorted by a number of each row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sftkit.config.schema.order_choice import AS_IS, LENGTH_GROUPED, SHUFFLED, RowOrder
from sftkit.core.rows import Offsets
from sftkit.ordering.splitting import Indices

GROUP_ROWS = 512
"""Rows of `length_grouped` that are sorted by length together: some steps of training."""

_STAGES = 2
"""Keeps the random numbers of stages apart from others of the same seed."""


def arrange(
    rows: Indices, order: RowOrder, keys: Offsets | npt.NDArray[np.float64] | None, seed: int, stage: int
) -> Indices:
    """Return rows in another order.

    Args:
        rows: in their present order, shape (n,).
        order: how to arrange them.
        keys: what to sort by, of all rows that the indices refer to: lengths, or the numbers of a column. None for
            orders that do not sort.
        seed: of the shuffling; rows with equal keys are shuffled, too.
        stage: the number of the stage, for random numbers of its own.

    Example:
        >>> arrange(np.array([0, 1, 2]), RowOrder("by_length"), np.array([30, 10, 20]), seed=1, stage=0).tolist()
        [1, 2, 0]
    """
    if order.kind == AS_IS:
        return rows
    shuffled = rows[np.random.default_rng([seed, _STAGES, stage]).permutation(len(rows))]
    if order.kind == SHUFFLED:
        return shuffled
    assert keys is not None
    found = keys[shuffled]
    if order.kind == LENGTH_GROUPED:
        return shuffled[_grouped(found)]
    return shuffled[np.argsort(-found if order.descending else found, kind="stable")]


def _grouped(lengths: Offsets | npt.NDArray[np.float64]) -> Offsets:
    """Sort each group of rows by length, the longest first, and begin with the group that has the longest row.

    As transformers' `LengthGroupedSampler` does, so that a batch that does not fit into memory shows at once.
    """
    if not len(lengths):
        return np.zeros(0, np.int64)
    groups = np.arange(len(lengths)) // GROUP_ROWS
    longest = groups[int(np.argmax(lengths))]
    groups = np.where(groups == longest, -1, groups)
    return np.lexsort((-lengths, groups))
