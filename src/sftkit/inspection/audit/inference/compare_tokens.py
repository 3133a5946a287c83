"""Whether the tokens before each trained token are those of inference, and where they first differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sftkit.core.rows import Ids, Mask
from sftkit.inspection.audit.inference.turn_tokens import TurnTokens, common_length

SHOWN_TOKENS = 8
"""How many tokens from the first difference on are shown."""


class FirstDifference(NamedTuple):
    """Where a row first differs from what the model has at inference."""

    message: int
    """Index of the message whose turn the tokens are compared with."""
    token: int
    """Index of the token in the row."""
    expected: tuple[int, ...]
    """This token at inference and some that follow it; () where nothing follows there."""


def find_difference(
    ids: Ids, trained: Mask, turns: Sequence[TurnTokens], stops: Sequence[int], *, may_lack_start: bool
) -> FirstDifference | None:
    """Find the first trained token that does not stand as at inference.

    A trained token stands as at inference if, for one of the turns, it is a token of this turn, and all tokens before
    it are those of the prompt and of the turn. So it need not be known which turn a trained token belongs to. A stop
    token after the turn counts as one of its tokens: some templates write it only if a message follows.

    Args:
        ids: the row, shape (tokens,).
        trained: which of its tokens carry a loss, shape (tokens,).
        turns: turns of its conversation.
        stops: the stop tokens.
        may_lack_start: whether the start of the row may be cut off; then what is there is compared.

    Returns:
        The first difference, None if there is none. If several turns may be meant, it is that of the turn with the
        most tokens in common.

    Example:
        >>> turn = TurnTokens(1, 2, np.array([5, 6, 7, 8]))
        >>> find_difference(np.array([5, 6, 7, 9]), np.array([0, 0, 1, 1], bool), [turn], [], may_lack_start=False)
        FirstDifference(message=1, token=3, expected=(8,))
    """
    stands = np.zeros(len(ids), np.bool_)
    wanted = np.flatnonzero(trained)
    if not len(wanted):
        return None
    closest: list[tuple[bool, int, FirstDifference]] = []
    for turn in turns:
        for start in _starts(ids, int(wanted[0]) + 1, turn, may_lack_start=may_lack_start):
            shared = common_length(ids, turn.ids[start:])
            first = max(0, turn.prompt - start)
            stands[first:shared] = True
            has_ended = start + shared == len(turn.ids)
            if has_ended and first <= shared < len(ids) and ids[shared] in stops:
                stands[shared] = True
            if shared < len(ids):
                expected = turn.ids[start + shared :][:SHOWN_TOKENS].tolist()
                closest.append((not has_ended, shared, FirstDifference(turn.message, shared, tuple(expected))))
    missing = wanted[~stands[wanted]]
    if not len(missing):
        return None
    # A difference after the first token that does not stand as at inference is about a later turn.
    before = [each for each in closest if each[1] <= missing[0]]
    if not before:
        return FirstDifference(turns[0].message if turns else 0, int(missing[0]), ())
    return max(before, key=lambda each: each[:2])[2]


def _starts(ids: Ids, count: int, turn: TurnTokens, *, may_lack_start: bool) -> Iterator[int]:
    """Yield where in the tokens of a turn a row may begin: at 0, or wherever its first `count` tokens stand there."""
    yield 0
    if may_lack_start:
        here, there = np.ascontiguousarray(ids[:count]), np.ascontiguousarray(turn.ids)
        size, haystack, needle = there.itemsize, there.tobytes(), here.astype(there.dtype).tobytes()
        position = haystack.find(needle, size)
        while position >= 0:
            if position % size == 0:
                yield position // size
            position = haystack.find(needle, position + 1)
