"""What limits on the length of rows cut off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Mask, Offsets, Ragged, trained_mask


@dataclass(frozen=True)
class Cuts:
    """How much was cut off some rows, by any limit on their length. Rows that were dropped afterwards count, too.

    Example:
        >>> Cuts(rows=1, tokens=9, trained_tokens=4) + Cuts(rows=1, tokens=2, rows_losing_answers=1)
        Cuts(rows=2, tokens=11, trained_tokens=4, rows_losing_answers=1)
    """

    rows: int = 0
    """Rows that were cut."""
    tokens: int = 0
    """Tokens that were cut off them."""
    trained_tokens: int = 0
    """Those of them that would have carried a loss."""
    rows_losing_answers: int = 0
    """Rows that lost at least one whole answer."""

    def __add__(self, other: Cuts) -> Cuts:
        return Cuts(
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.trained_tokens + other.trained_tokens,
            self.rows_losing_answers + other.rows_losing_answers,
        )

    def describe(self, rows_read: int) -> str:
        """Describe the cuts in words, given the number of all rows.

        Example:
            >>> Cuts(rows=10, tokens=24_880, trained_tokens=12_000, rows_losing_answers=1).describe(10)
            '10 of 10 rows cut, 12,000 trained tokens lost (of 24,880 tokens cut off); 1 row lost whole answers'
        """
        lost = f"{self.trained_tokens:,} trained tokens lost (of {self.tokens:,} tokens cut off)"
        text = f"{self.rows:,} of {rows_read:,} rows cut, {lost}"
        rows = f"{self.rows_losing_answers:,} row{'' if self.rows_losing_answers == 1 else 's'}"
        return f"{text}; {rows} lost whole answers" if self.rows_losing_answers else text


def cut_before_answer(limit: int) -> str:
    """Why a row is dropped of which the first `limit` tokens were kept, and none of them is trained."""
    return f"cut at {limit} tokens before the first answer"


def cut_after_answer(limit: int) -> str:
    """Why a row is dropped of which the last `limit` tokens were kept, and none of them is trained."""
    return f"cut to the last {limit} tokens, after the last answer"


@dataclass(frozen=True)
class RowCut:
    """What was cut off one row."""

    tokens: int
    trained_tokens: int
    loses_answer: bool
    """Whether a whole answer was cut off."""
    reason: str
    """Why the row is dropped if it has no trained token left."""

    def then(self, later: RowCut) -> RowCut:
        """Return both cuts as one."""
        return RowCut(
            self.tokens + later.tokens,
            self.trained_tokens + later.trained_tokens,
            self.loses_answer or later.loses_answer,
            later.reason if later.trained_tokens else self.reason,
        )


@dataclass(frozen=True)
class LongRows:
    """What a limit cuts off those of some rows that are longer. All arrays have the shape (long rows,)."""

    rows: Offsets
    """Indices of the long rows, ascending."""
    tokens: Offsets
    """Tokens that are cut off each."""
    trained_tokens: Offsets
    """Those of them that carry a loss."""
    loses_answer: Mask
    """Whether a whole answer is cut off."""
    trained_left: Offsets
    """Trained tokens that remain."""

    def __len__(self) -> int:
        return len(self.rows)


def find_long_rows(labels: Ragged, limit: int) -> LongRows:
    """Find the rows of more than `limit` tokens, and what is lost if their first `limit` tokens are kept.

    An answer is a run of trained tokens; it is lost as a whole if none of them is left.

    Example:
        >>> long = find_long_rows(Ragged.from_lists([[-100, 1, -100, 2, 2], [-100, 1, 1]]), 2)
        >>> long.rows.tolist(), long.tokens.tolist(), long.trained_tokens.tolist(), long.loses_answer.tolist()
        ([0, 1], [3, 1], [2, 1], [True, False])
    """
    rows = np.flatnonzero(labels.lengths > limit)
    return _count_losses(labels, rows, labels.offsets[rows], limit)


def find_long_rows_at_end(labels: Ragged, limit: int) -> LongRows:
    """Find the rows of more than `limit` tokens, and what is lost if their last `limit` tokens are kept.

    The first of these tokens loses its loss, since nothing predicts it.

    Example:
        >>> long = find_long_rows_at_end(Ragged.from_lists([[-100, 1, -100, 2, 2], [-100, 1, 1]]), 2)
        >>> long.rows.tolist(), long.tokens.tolist(), long.trained_tokens.tolist(), long.loses_answer.tolist()
        ([0, 1], [3, 1], [2, 1], [True, False])
    """
    rows = np.flatnonzero(labels.lengths > limit)
    return _count_losses(labels, rows, labels.offsets[rows + 1] - limit, limit)


def _count_losses(labels: Ragged, rows: Offsets, kept_from: Offsets, limit: int) -> LongRows:
    """Count what rows lose of which `limit` tokens are kept, from given places among all tokens."""
    counts = np.zeros((3, len(rows)), np.int64)
    trained = trained_mask(labels) if len(rows) else np.zeros(0, np.bool_)
    for place, (start, stop, kept) in enumerate(
        zip(labels.offsets[rows], labels.offsets[rows + 1], kept_from, strict=True)
    ):
        before, after = trained[start:stop], trained[kept + (kept > start) : kept + limit]
        left = np.count_nonzero(after)
        counts[:, place] = np.count_nonzero(before) - left, _runs(before) - _runs(after), left
    return LongRows(rows, labels.lengths[rows] - limit, counts[0], counts[1] > 0, counts[2])


def _runs(trained: Mask) -> int:
    return int(trained[:1].sum()) + int(np.count_nonzero(trained[1:] & ~trained[:-1]))
