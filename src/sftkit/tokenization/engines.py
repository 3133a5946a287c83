"""Fast engines beside the reference: what they do, and which of them a run may use."""

from __future__ import annotations

from dataclasses import dataclass

ENCODER, RENDERER = "encoder", "renderer"


class UnsupportedByEngineError(Exception):
    """A fast engine cannot take a tokenizer or a template, or is not known to do the same; the message says why."""


@dataclass(frozen=True)
class EnginePolicy:
    """Which engines may be used, and how closely they are watched.

    reference: what only the reference may do, of ENCODER and RENDERER. verify: fraction of rows that a fast engine
    makes and the reference makes again.
    """

    reference_only: frozenset[str]
    verify_fraction: float
