"""What fast engines do, and which of them a run may use."""

from __future__ import annotations

from dataclasses import dataclass

ENCODER, RENDERER = "encoder", "renderer"
"""The two tasks that have a reference engine and a fast engine."""


class UnsupportedByEngineError(Exception):
    """A fast engine does not support a tokenizer or template, or is not known to give the same result."""


@dataclass(frozen=True)
class EnginePolicy:
    """Which engines a run may use, and how many rows are verified."""

    reference_only: frozenset[str]
    """The tasks, ENCODER or RENDERER, for which only the reference engine may be used."""
    verify_fraction: float
    """Fraction of the rows of a fast engine that the reference engine processes again to compare the results."""
