"""Regular expressions whose matches in contents carry no loss, or another weight: `mask_pattern`, `pattern_weights`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sftkit.core.patterns import finder

WeightedSpan = tuple[int, int, float]
"""Characters [start, end), and the weight of their loss."""


@dataclass(frozen=True)
class Patterns:
    """Regular expressions (RE2), each with the weight of its matches; 0 means no loss."""

    weights: tuple[tuple[str, float], ...] = ()

    @property
    def weigh_something(self) -> bool:
        """Whether matches may have a loss with a weight of their own."""
        return any(weight not in (0, 1) for _, weight in self.weights)

    def matches(self, content: str) -> list[WeightedSpan]:
        """Return the matches in a text, ordered and disjoint; where several patterns match, their weights multiply.

        Example:
            >>> Patterns((("b+", 0.0), ("[a-c]+", 0.5))).matches("abbc d")
            [(0, 1, 0.5), (1, 3, 0.0), (3, 4, 0.5)]
        """
        found: list[WeightedSpan] = []
        for pattern, weight in self.weights:
            found = _multiplied(found, [(start, end, weight) for start, end in finder(pattern)(content)])
        return found


def _multiplied(first: Sequence[WeightedSpan], second: Sequence[WeightedSpan]) -> list[WeightedSpan]:
    """Return the spans of two lists, divided where they overlap; each list is ordered and disjoint."""
    if not first or not second:
        return [*first, *second]
    edges = sorted({edge for start, end, _ in (*first, *second) for edge in (start, end)})
    products: list[WeightedSpan] = []
    places = [0, 0]
    for begin, after in pairwise(edges):
        covering: list[float] = []
        for which, spans in enumerate((first, second)):
            while places[which] < len(spans) and spans[places[which]][1] <= begin:
                places[which] += 1
            if places[which] < len(spans) and spans[places[which]][0] <= begin:
                covering.append(spans[places[which]][2])
        if covering:
            products.append((begin, after, covering[0] * (covering[1] if len(covering) > 1 else 1)))
    return products
