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


@dataclass(frozen=True)
class RowCut:
    """What was cut off one row."""

    tokens: int
    trained_tokens: int
    loses_answer: bool
    """Whether a whole answer was cut off."""
    limit: int
    """The length in tokens at which the row lost its last trained tokens, or else the first limit."""

    def then(self, later: RowCut) -> RowCut:
        """Return both cuts as one."""
        return RowCut(
            self.tokens + later.tokens,
            self.trained_tokens + later.trained_tokens,
            self.loses_answer or later.loses_answer,
            later.limit if later.trained_tokens else self.limit,
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

    An answer is a run of trained tokens; it is lost as a whole if its first token is cut off.

    Example:
        >>> long = find_long_rows(Ragged.from_lists([[-100, 1, -100, 2, 2], [-100, 1, 1]]), 2)
        >>> long.rows.tolist(), long.tokens.tolist(), long.trained_tokens.tolist(), long.loses_answer.tolist()
        ([0, 1], [3, 1], [2, 1], [True, False])
    """
    lengths = labels.lengths
    rows = np.flatnonzero(lengths > limit)
    counts = np.zeros((3, len(rows)), np.int64)
    trained = trained_mask(labels) if len(rows) else np.zeros(0, np.bool_)
    for place, (start, stop) in enumerate(zip(labels.offsets[rows], labels.offsets[rows + 1], strict=True)):
        lost = trained[start + limit : stop]
        answers = np.count_nonzero(lost & ~trained[start + limit - 1 : stop - 1])
        counts[:, place] = np.count_nonzero(lost), answers, np.count_nonzero(trained[start : start + limit])
    return LongRows(rows, lengths[rows] - limit, counts[0], counts[1] > 0, counts[2])
