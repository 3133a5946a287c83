"""A batch of rows with flags for each token, for checks that look at many rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sftkit.audit.checks.packs import PackBoundaries
from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.expectations.id_sequences import ConcatenatedRows
from sftkit.core.rows import Ids, Mask, Offsets

STOP, OPENER, FOREIGN, SPECIAL, AFTER, BEFORE, HOLE = (1 << bit for bit in range(7))
"""Flags of tokens: stop token, opener of a message, never written by the template, any special token, constrained
in what may follow or precede it, no token of the vocabulary."""


@dataclass(frozen=True)
class TokenRuns:
    """Runs of consecutive trained tokens, ascending. A run never crosses from one row to the next."""

    starts: Offsets
    """Position of the first token of each run, among all tokens, int64, shape (runs,)."""
    ends: Offsets
    """Position after the last token of each run, int64, shape (runs,)."""
    rows: Offsets
    """The row of each run, int64, shape (runs,)."""
    whole: Mask
    """Rows in which every token is trained, bool, shape (rows,)."""


@dataclass(frozen=True)
class TokenBatch:
    """Rows (or packed sequences), the flags of their tokens, and which tokens carry a loss."""

    expectations: Expectations
    """What correct rows look like."""
    tokens: ConcatenatedRows
    """The rows."""
    flags: npt.NDArray[np.uint8]
    """Flags of each token, uint8, shape (tokens,)."""
    marked: Offsets
    """Positions of the tokens that have flags, ascending; checks of special tokens look only at these."""
    marks: npt.NDArray[np.uint8]
    """Flags of the marked tokens."""
    marked_rows: Offsets
    """Rows of the marked tokens."""
    trained: Mask | None
    """Which tokens carry a loss, bool, shape (tokens,); None if unknown."""
    runs: TokenRuns | None
    """Runs of trained tokens; None if unknown."""
    cut_start: Mask
    """Rows whose start may be missing (pieces of wrapped packs), bool, shape (rows,). What is missing is no fault."""
    cut_end: Mask
    """Rows whose end may be missing, bool, shape (rows,)."""

    def positions_of(self, flag: int) -> Offsets:
        """Positions of tokens that have one of the given flags, ascending."""
        return self.marked[(self.marks & flag) > 0]

    def near_cut_start(self, positions: Offsets, rows: Offsets, count: int) -> Mask:
        """Which positions are among the first `count` tokens of a row whose start may be missing."""
        if not self.cut_start.any():
            return np.zeros(len(positions), np.bool_)
        near: Mask = self.cut_start[rows] & (positions < self.tokens.first[rows] + count)
        return near


def batch_of(
    values: Ids, offsets: Offsets, trained: Mask | None, expectations: Expectations, packs: PackBoundaries | None = None
) -> TokenBatch:
    """Compute the flags of each token, and the trained runs.

    Args:
        values: ids, row by row, int32, shape (tokens,).
        offsets: where rows (or packed sequences) begin, shape (rows + 1,).
        trained: which tokens carry a loss, shape (tokens,); None if unknown.
        expectations: what correct rows look like.
        packs: the packs that the sequences come from.
    """
    table = _table(expectations)
    size = len(table)
    if not len(values):
        flags = np.zeros(0, np.uint8)
    elif expectations.vocabulary_size is None:
        flags = np.zeros(len(values), np.uint8)
    elif values.min() < 0 or values.max() >= size:
        foreign = (values < 0) | (values >= size)
        flags = table[np.where(foreign, 0, values)]
        flags[foreign] = HOLE
    else:
        flags = table.take(values, mode="clip")  # faster than checking each of them again
    tokens = ConcatenatedRows(values, offsets, *_bounds(values, offsets, expectations))
    runs = None
    if trained is not None:
        trained, runs = _runs(trained, tokens)
    marked = np.flatnonzero(flags != 0)
    whole = np.zeros(len(tokens.first), np.bool_)
    cut = (packs.cut_start, packs.cut_end) if packs is not None else (whole, whole)
    return TokenBatch(
        expectations, tokens, flags, marked, flags[marked], tokens.rows_of_many(marked), trained, runs, *cut
    )


@lru_cache(maxsize=8)
def _table(expectations: Expectations) -> npt.NDArray[np.uint8]:
    """Flags by token id."""
    table = np.zeros(expectations.vocabulary_size or 1, np.uint8)
    for flag, ids in (
        (STOP, expectations.stops),
        (OPENER, expectations.openers),
        (FOREIGN, expectations.foreign),
        (SPECIAL, expectations.special),
        (AFTER, [token for token, _ in expectations.after]),
        (BEFORE, [token for token, _ in expectations.before]),
        (HOLE, expectations.holes),
    ):
        known = [value for value in ids if 0 <= value < len(table)]
        table[known] |= flag
    return table


def _bounds(values: Ids, offsets: Offsets, expectations: Expectations) -> tuple[Offsets, Offsets]:
    """Start and end of each row without padding. Padding by a stop token or the BOS cannot be recognized."""
    first, last = offsets[:-1], offsets[1:]
    pad = expectations.pad
    filled = last > first
    if pad is None or pad in expectations.stops or pad == expectations.bos or not filled.any():
        return first, last
    if not (values[first[filled]] == pad).any() and not (values[last[filled] - 1] == pad).any():
        return first, last
    content = np.flatnonzero(values != pad)
    begin, end = np.searchsorted(content, first), np.searchsorted(content, last)
    held = end > begin
    content = np.append(content, 0)
    return np.where(held, content[np.minimum(begin, len(content) - 1)], first), np.where(
        held, content[end - 1] + 1, first
    )


def _runs(trained: Mask, tokens: ConcatenatedRows) -> tuple[Mask, TokenRuns]:
    """Runs of trained tokens. The first token of a row never counts as trained: no token predicts it."""
    trained = trained.copy()
    filled = tokens.offsets[:-1][np.diff(tokens.offsets) > 0]
    trained[filled] = False
    edges = np.flatnonzero(trained[1:] != trained[:-1]) + 1  # the first token of all is not trained
    if len(edges) % 2:
        edges = np.append(edges, len(trained))
    starts, ends = edges[0::2], edges[1::2]
    rows = tokens.rows_of_many(starts)
    whole = np.zeros(len(tokens.first), np.bool_)
    whole[rows[(starts == tokens.first[rows] + 1) & (ends == tokens.last[rows])]] = True
    return trained, TokenRuns(starts, ends, rows, whole)
