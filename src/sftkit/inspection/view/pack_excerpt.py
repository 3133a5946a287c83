"""Which sequences of a pack stand on a page: a pack may hold hundreds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from sftkit.inspection.view.selection import RowLocation
from sftkit.inspection.view.shown_row import ShownRow

FIRST_SEQUENCES = 3
"""Sequences that are shown of a pack: the first ones, and as many of the others that have findings."""


def with_page_sequences(row: ShownRow, place: RowLocation, *, asked_for: bool) -> ShownRow:
    """A row with the sequences that pages show of it.

    Args:
        row: what is shown; a row that is no pack is shown whole.
        place: knows the sequences that a search was for.
        asked_for: this very pack was; then all of it is shown.
    """
    every = range(len(row.seq_lengths))
    if place.hits is not None and row.seq_lengths:
        return replace(row, on_page=place.hits)
    if asked_for or len(every) <= FIRST_SEQUENCES + 1:
        return replace(row, on_page=tuple(every))
    faulty = [number for number in sequences_with_findings(row) if number >= FIRST_SEQUENCES]
    return replace(row, on_page=(*every[:FIRST_SEQUENCES], *faulty[:FIRST_SEQUENCES]))


def sequences_with_findings(row: ShownRow) -> list[int]:
    """The sequences of a pack that have findings, ascending."""
    return sorted({_sequence_at(found.start, row.seq_lengths) for found in row.findings if found.turn is not None})


def _sequence_at(position: int, lengths: Sequence[int]) -> int:
    return bisect_right(list(accumulate(lengths)), position)
