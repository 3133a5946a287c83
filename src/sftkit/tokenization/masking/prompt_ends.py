"""Where the prompts of trained turns end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.supervision import AssistantTurn

_NO_SPAN = (sys.maxsize, sys.maxsize)


def turn_starts(turns: Sequence[AssistantTurn]) -> list[int]:
    """Return `prompt_ends` of turns that are trained as a whole; empty ones have none."""
    starts = [start for _, start, end in turns if start < end]
    if len(turns) < 2 or turns[-1].message - turns[0].message >= len(turns) - 1:  # each turn is of another message
        return starts
    return prompt_ends(turns, [(start, end) for _, start, end in turns])


def prompt_ends(turns: Sequence[AssistantTurn], spans: Sequence[Span]) -> list[int]:
    """Return the starts of the turns in which something is trained, ascending.

    A turn that follows another one directly has no prompt of its own: it is a further `{% generation %}` block.

    Args:
        turns: the produced parts of turns, ordered.
        spans: what of them carries a loss: ordered and disjoint.

    Example:
        >>> turns = [AssistantTurn(1, 4, 9), AssistantTurn(3, 12, 15), AssistantTurn(3, 15, 19)]
        >>> prompt_ends(turns, [(6, 9), (12, 19)])
        [4, 12]
    """
    ends: list[int] = []
    last, following = -1, iter(spans)
    first, after = next(following, _NO_SPAN)
    for _, start, end in turns:
        while after <= start:
            first, after = next(following, _NO_SPAN)
        if first < end and start != last:
            ends.append(start)
        last = end
    return ends
