"""What sequences of ids have in common."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.audit.norms import Ids


def common_prefix(rows: Sequence[Ids]) -> Ids:
    """The ids that all sequences begin with."""
    shortest = min(rows, key=len)
    for place, value in enumerate(shortest):
        if any(row[place] != value for row in rows):
            return shortest[:place]
    return shortest


def common_suffix(rows: Sequence[Ids]) -> Ids:
    """The ids that all sequences end with."""
    return common_prefix([row[::-1] for row in rows])[::-1]


def begins_with(sequence: Ids, begin: Ids) -> bool:
    """Whether a sequence begins with another."""
    return sequence[: len(begin)] == begin


def ends_with(sequence: Ids, end: Ids) -> bool:
    """Whether a sequence ends with another."""
    return sequence[len(sequence) - len(end) :] == end
