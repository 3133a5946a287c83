"""How much work batches are, in tokens."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class WorkCounts:
    """What a model has processed. Counts can be added and subtracted.

    Example:
        >>> WorkCounts(tokens=5, slots=8) + WorkCounts(tokens=2, slots=8)
        WorkCounts(tokens=7, trained_tokens=0, slots=16, squared_lengths=0, head_positions=0)
    """

    tokens: int = 0
    """Tokens, without padding."""

    trained_tokens: int = 0
    """Tokens that carry a loss."""

    slots: int = 0
    """Tokens, including padding."""

    squared_lengths: int = 0
    """Sum over all sequences of the square of their tokens; causal attention computes half as many pairs."""

    head_positions: int = 0
    """Positions at which the output head ran."""

    def __sub__(self, other: WorkCounts) -> WorkCounts:
        return WorkCounts(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __add__(self, other: WorkCounts) -> WorkCounts:
        return WorkCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))
