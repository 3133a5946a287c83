"""Counts the messages of rows, and which role follows which, by the headers that the chat template writes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftkit.audit.expectations.expected import Expectations
from sftkit.core.row_kinds import RowKind
from sftkit.core.rows import Offsets, Ragged

START = "start"
"""Stands for the start of a row where a role is said to follow another."""

_ASSISTANT = "assistant"


@dataclass(frozen=True)
class MessageStarts:
    """The messages of some rows, in order."""

    rows: Offsets
    """The row of each message, ascending, int64, shape (messages,)."""
    roles: npt.NDArray[np.int64]
    """The number of its role, shape (messages,)."""
    names: tuple[str, ...]
    """The names of the roles."""

    def count_per_row(self, rows: int) -> Offsets:
        """Return the number of messages in each of `rows` rows, int64, shape (rows,)."""
        return np.bincount(self.rows, minlength=rows)

    def orders(self) -> dict[tuple[str, str], Offsets]:
        """Return which role follows which: (role before, role) -> the row of each such message.

        Example:
            >>> starts = MessageStarts(np.array([0, 0, 1]), np.array([0, 1, 0]), ("user", "assistant"))
            >>> {order: rows.tolist() for order, rows in starts.orders().items()}
            {('user', 'assistant'): [0], ('start', 'user'): [0, 1]}
        """
        before = np.full(len(self.roles), len(self.names))
        follows = self.rows[1:] == self.rows[:-1]
        before[1:][follows] = self.roles[:-1][follows]
        pairs = before * len(self.names) + self.roles
        names = (*self.names, START)
        return {
            (names[pair // len(self.names)], names[pair % len(self.names)]): self.rows[pairs == pair]
            for pair in np.unique(pairs).tolist()
        }


@dataclass(frozen=True)
class MessageFinder:
    """Finds the headers of messages in many rows at once.

    Example:
        >>> finder = MessageFinder({(7, 1): "user", (7, 2): "assistant"})
        >>> finder.find(Ragged.from_lists([[7, 1, 5, 7, 2], [5, 5], [7]])).count_per_row(3).tolist()
        [2, 0, 0]
    """

    headers: dict[tuple[int, ...], str]
    """Token ids that start a message -> its role; those with special tokens only, if there are any."""

    @classmethod
    def of(cls, expectations: Expectations) -> MessageFinder:
        """Return a finder for the template that expectations were learned from."""
        if expectations.origin.kind == RowKind.TEXT:
            return cls({})
        every = {
            **dict(zip(expectations.headers, expectations.roles, strict=True)),
            **dict.fromkeys(expectations.prompts, _ASSISTANT),
        }
        every.pop((), None)
        special = frozenset(expectations.special)
        marked = {header: role for header, role in every.items() if special.intersection(header)}
        return cls(marked or every)

    @property
    def is_usable(self) -> bool:
        """Whether any header is known."""
        return bool(self.headers)

    def find(self, rows: Ragged) -> MessageStarts:
        """Return the messages of some rows."""
        ids = rows.values
        names = tuple(dict.fromkeys(self.headers.values()))
        roles = np.full(len(ids), -1, np.int8)
        for first in {header[0] for header in self.headers}:
            places = np.flatnonzero(ids == first)
            # Where several headers match, the longest one wins.
            for header in sorted((header for header in self.headers if header[0] == first), key=len):
                found = places[places + len(header) <= len(ids)]
                for step in range(1, len(header)):
                    found = found[ids[found + step] == header[step]]
                roles[found] = names.index(self.headers[header])
        starts = np.flatnonzero(roles >= 0)
        row = np.searchsorted(rows.offsets, starts, side="right") - 1
        return MessageStarts(row, roles[starts].astype(np.int64), names)
