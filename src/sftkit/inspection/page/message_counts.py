"""Counts the messages of rows by the headers that the chat template writes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftkit.audit.expectations.expected import Expectations
from sftkit.core.row_kinds import RowKind
from sftkit.core.rows import Mask, Offsets, Ragged


@dataclass(frozen=True)
class MessageCounter:
    """Finds the headers of messages in many rows at once.

    Example:
        >>> counter = MessageCounter(((7, 1), (7, 2)))
        >>> counter.count(Ragged.from_lists([[7, 1, 5, 7, 2], [5, 5], [7]])).tolist()
        [2, 0, 0]
    """

    headers: tuple[tuple[int, ...], ...]
    """Token ids that start a message; those with special tokens only, if there are any."""

    @classmethod
    def of(cls, expectations: Expectations) -> MessageCounter:
        """Return a counter for the template that expectations were learned from."""
        if expectations.origin.kind == RowKind.TEXT:
            return cls(())
        every = tuple(dict.fromkeys(header for header in (*expectations.prompts, *expectations.headers) if header))
        special = frozenset(expectations.special)
        marked = tuple(header for header in every if special.intersection(header))
        return cls(marked or every)

    @property
    def is_usable(self) -> bool:
        """Whether any header is known."""
        return bool(self.headers)

    def count(self, rows: Ragged) -> Offsets:
        """Return the number of messages in each row, int64, shape (rows,)."""
        ids = rows.values
        starts: Mask = np.zeros(len(ids), np.bool_)
        for first in {header[0] for header in self.headers}:
            places = np.flatnonzero(ids == first)
            for header in (header for header in self.headers if header[0] == first):
                found = places[places + len(header) <= len(ids)]
                for step in range(1, len(header)):
                    found = found[ids[found + step] == header[step]]
                starts[found] = True
        return rows.count_per_row(starts)
