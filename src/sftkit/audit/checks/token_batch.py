"""Rows of tokens side by side, with what each token is, for checks that look at many rows at once."""

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
"""What a token is, as flags."""


@dataclass(frozen=True)
class TokenRuns:
    """Stretches of trained tokens, [starts, ends) of all tokens, ascending; no run goes on from one row to the next.

    rows: of each run. whole: rows of which everything is trained, bool, shape (rows,).
    """

    starts: Offsets
    ends: Offsets
    rows: Offsets
    whole: Mask


@dataclass(frozen=True)
class TokenBatch:
    """Rows (or packed sequences), what their tokens are, and which of them carry a loss.

    flags: of each token, uint8, shape (tokens,). marked, marks, marked_rows: positions of the tokens that have flags,
    these flags, and their rows; all that is looked for among special tokens is looked for there. cut_start, cut_end:
    rows that may have been cut from something longer (pieces of wrapped packs): what is missing is no fault.
    """

    norms: Expectations
    text: ConcatenatedRows
    flags: npt.NDArray[np.uint8]
    marked: Offsets
    marks: npt.NDArray[np.uint8]
    marked_rows: Offsets
    trained: Mask | None
    runs: TokenRuns | None
    cut_start: Mask
    cut_end: Mask

    def having(self, flag: int) -> Offsets:
        """The positions of tokens that have one of some flags, ascending."""
        return self.marked[(self.marks & flag) > 0]

    def near_tear(self, positions: Offsets, rows: Offsets, tokens: int) -> Mask:
        """Which positions stand among the first tokens of a row whose beginning may be missing."""
        if not self.cut_start.any():
            return np.zeros(len(positions), np.bool_)
        near: Mask = self.cut_start[rows] & (positions < self.text.first[rows] + tokens)
        return near


def batch_of(
    values: Ids, offsets: Offsets, trained: Mask | None, norms: Expectations, packs: PackBoundaries | None = None
) -> TokenBatch:
    """Find what each token is, and the trained runs.

    Args:
        values: ids, row by row, int32, shape (tokens,).
        offsets: where rows (or packed sequences) begin, shape (rows + 1,).
        trained: which tokens carry a loss, shape (tokens,); None when unknown.
        norms: what right rows look like.
        packs: the packs that sequences were taken from.
    """
    table = _table(norms)
    size = len(table)
    if not len(values):
        flags = np.zeros(0, np.uint8)
    elif norms.vocabulary_size is None:
        flags = np.zeros(len(values), np.uint8)
    elif values.min() < 0 or values.max() >= size:
        foreign = (values < 0) | (values >= size)
        flags = table[np.where(foreign, 0, values)]
        flags[foreign] = HOLE
    else:
        flags = table.take(values, mode="clip")  # faster than to have each of them looked at again
    text = ConcatenatedRows(values, offsets, *_bounds(values, offsets, norms))
    runs = None
    if trained is not None:
        trained, runs = _runs(trained, text)
    marked = np.flatnonzero(flags != 0)
    whole = np.zeros(len(text.first), np.bool_)
    torn = (packs.cut_start, packs.cut_end) if packs is not None else (whole, whole)
    return TokenBatch(norms, text, flags, marked, flags[marked], text.rows_of_many(marked), trained, runs, *torn)


@lru_cache(maxsize=8)
def _table(norms: Expectations) -> npt.NDArray[np.uint8]:
    """What each id is, by id."""
    table = np.zeros(norms.vocabulary_size or 1, np.uint8)
    for flag, ids in (
        (STOP, norms.stops),
        (OPENER, norms.openers),
        (FOREIGN, norms.foreign),
        (SPECIAL, norms.special),
        (AFTER, [token for token, _ in norms.after]),
        (BEFORE, [token for token, _ in norms.before]),
        (HOLE, norms.holes),
    ):
        known = [value for value in ids if 0 <= value < len(table)]
        table[known] |= flag
    return table


def _bounds(values: Ids, offsets: Offsets, norms: Expectations) -> tuple[Offsets, Offsets]:
    """Where each row begins and ends, padding left out. Padding with a stop token or a BOS cannot be told from it."""
    first, last = offsets[:-1], offsets[1:]
    pad = norms.pad
    filled = last > first
    if pad is None or pad in norms.stops or pad == norms.bos or not filled.any():
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


def _runs(trained: Mask, text: ConcatenatedRows) -> tuple[Mask, TokenRuns]:
    """Trained stretches. The first position of a row counts for nothing: no token predicts it."""
    trained = trained.copy()
    filled = text.offsets[:-1][np.diff(text.offsets) > 0]
    trained[filled] = False
    edges = np.flatnonzero(trained[1:] != trained[:-1]) + 1  # the first token of all is not trained
    if len(edges) % 2:
        edges = np.append(edges, len(trained))
    starts, ends = edges[0::2], edges[1::2]
    rows = text.rows_of_many(starts)
    whole = np.zeros(len(text.first), np.bool_)
    whole[rows[(starts == text.first[rows] + 1) & (ends == text.last[rows])]] = True
    return trained, TokenRuns(starts, ends, rows, whole)
