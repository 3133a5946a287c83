"""Which staged rows are samples of the same conversation (`render: per_turn`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftkit.core.rows import Offsets
from sftkit.shards.staging.staged_rows import read_staged_rows
from sftkit.shards.staging.staged_unit import StagedUnit


def conversations_of(staged: Sequence[StagedUnit]) -> Offsets | None:
    """Return the conversation of each staged row, int64, shape (rows,), ascending.

    Samples of a conversation follow each other in the file of its unit, and have the same row number.

    Returns:
        None if each row is a conversation of its own.
    """
    if not any(unit.rows_added for unit in staged):
        return None
    begins = [_begins(unit) if unit.rows_added else np.ones(unit.rows, np.int64) for unit in staged if unit.rows]
    return np.cumsum(np.concatenate(begins)) - 1 if begins else None


def _begins(unit: StagedUnit) -> Offsets:
    """Return 1 for the first row of each conversation of a unit, and 0 for the others."""
    numbers = np.concatenate([batch.numbers for batch in read_staged_rows(unit.path)])
    begins: Offsets = np.concatenate([[1], np.diff(numbers) != 0]).astype(np.int64)
    return begins
