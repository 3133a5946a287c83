"""How much work batches are, counted in tokens."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class WorkCounts:
    """What went through a model.

    tokens: padding left out. trained_tokens: those that carry a loss. slots: with padding. squared_lengths: sum over
    sequences of tokens squared, of which causal attention does half. head_positions: those the output head ran on.
    """

    tokens: int = 0
    trained_tokens: int = 0
    slots: int = 0
    squared_lengths: int = 0
    head_positions: int = 0

    def __sub__(self, other: WorkCounts) -> WorkCounts:
        return WorkCounts(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __add__(self, other: WorkCounts) -> WorkCounts:
        return WorkCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))
