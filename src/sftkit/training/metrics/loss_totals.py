"""Sums of losses, of all tokens and of each source and kind, and what is logged of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_LARGEST_EXPONENT = math.log(1.7e308)  # exp() of more overflows


@dataclass(frozen=True)
class LossTotals:
    """Sums over some tokens.

    Example:
        >>> (LossTotals(20.0, 10, 10) + LossTotals(30.0, 30, 30)).mean
        1.25
    """

    loss: float = 0.0
    """Of the losses, each times its weight."""

    weight: float = 0.0
    """Of the weights; without weights, the number of trained tokens."""

    tokens: int = 0
    """Trained tokens."""

    parts: Mapping[str, LossTotals] = field(default_factory=dict)
    """Of each source and kind that has tokens, by its name in the log."""

    def __add__(self, other: LossTotals) -> LossTotals:
        none = LossTotals()
        names = dict.fromkeys([*self.parts, *other.parts])
        parts = {name: self.parts.get(name, none) + other.parts.get(name, none) for name in names}
        return LossTotals(self.loss + other.loss, self.weight + other.weight, self.tokens + other.tokens, parts)

    @property
    def mean(self) -> float:
        """The mean loss; 0 without tokens."""
        return self.loss / self.weight if self.weight else 0.0


def totals_of_groups(groups: Mapping[str, Sequence[int]], sums: Sequence[Sequence[float]]) -> dict[str, LossTotals]:
    """The sums of each source and kind that has tokens, by name.

    Args:
        groups: by name, the numbers of the parts that belong to it.
        sums: of each part, its losses, weights and tokens: shape (3, parts).

    Example:
        >>> totals_of_groups({"reasoning": [0, 2]}, [[1.0, 9.0, 2.0], [4.0, 9.0, 2.0], [4, 9, 2]])["reasoning"].mean
        0.5
    """
    found = {}
    for name, numbers in groups.items():
        loss, weight, tokens = (sum(values[number] for number in numbers) for values in sums)
        if tokens:
            found[name] = LossTotals(loss, weight, round(tokens))
    return found


def part_entries(totals: LossTotals, prefix: str = "") -> dict[str, float]:
    """What is logged of each source and kind: its loss, its share of the weights, and its trained tokens.

    Args:
        totals: with the sums of the parts.
        prefix: comes before the names; an evaluation has one, and also logs perplexities.

    Example:
        >>> part_entries(LossTotals(8.0, 16.0, 16, {"source/math": LossTotals(2.0, 4.0, 8)}))
        {'loss/source/math': 0.5, 'weight_share/source/math': 0.25, 'trained_tokens/source/math': 8}
    """
    entries: dict[str, float] = {}
    for name, part in totals.parts.items():
        entries[f"{prefix}loss/{name}"] = part.mean
        if prefix:
            entries[f"{prefix}perplexity/{name}"] = perplexity(part.mean)
        entries[f"{prefix}weight_share/{name}"] = part.weight / totals.weight if totals.weight else 0.0
        entries[f"{prefix}trained_tokens/{name}"] = part.tokens
    return entries


def perplexity(loss: float) -> float:
    """The exponential of a loss; infinity if it is too large.

    Example:
        >>> perplexity(0.0), perplexity(1e6)
        (1.0, inf)
    """
    return math.inf if loss >= _LARGEST_EXPONENT else math.exp(loss)
