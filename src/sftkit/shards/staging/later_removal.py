"""Rows that are removed after they were staged, by steps that look at more than one row, or at no content at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Offsets


@dataclass(frozen=True)
class LaterRemoval:
    """Rows of one staged unit that one step removes for one reason. They stay in the file, and are not used."""

    step: str
    """Name of the step in row counts."""
    rows: Offsets
    """Indices of the rows in the file, ascending. No two removals of a unit share a row."""
    reason: str
    """The reason as it is counted."""
    is_quarantine: bool = False
    """Whether the rows are quarantined rather than dropped."""
    detailed_reason: Callable[[int], str] | None = None
    """The reason as it is listed, for the row `rows[index]`; None if it is `reason` for all rows."""

    def reason_of(self, index: int) -> str:
        """Return the reason of `rows[index]` as it is listed."""
        return self.reason if self.detailed_reason is None else self.detailed_reason(index)


def removed_rows(removals: Iterable[LaterRemoval]) -> Offsets:
    """Return the rows of all removals, ascending.

    Example:
        >>> late = LaterRemoval("packing", np.array([2, 7]), "too long")
        >>> removed_rows([late, LaterRemoval("deduplicate", np.array([4]), "duplicate")]).tolist()
        [2, 4, 7]
    """
    return np.sort(np.concatenate([np.zeros(0, np.int64), *(each.rows for each in removals)]))
