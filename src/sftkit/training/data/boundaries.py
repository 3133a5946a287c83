"""How attention is told where the sequences of a flat batch end, besides by `position_ids`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from sftkit.core.rows import Offsets

SEQUENCE_LENGTHS = "sequence_lengths"
"""The argument that `sequence_boundaries` attention looks for."""

BoundaryEncoder = Callable[[Offsets], Mapping[str, Any]]
"""Where sequences begin and end, int64, shape (sequences + 1,) -> arguments of the model."""


def position_boundaries(ends: Offsets) -> Mapping[str, Any]:
    """Nothing: transformers makes a block-diagonal causal mask from the positions."""
    return {}


def flash_boundaries(ends: Offsets) -> Mapping[str, Any]:
    """What flash attention takes (`cu_seq_lens_q`, ...); left to find it out itself, it waits for the GPU."""
    cumulated = torch.from_numpy(ends.astype(np.int32))
    longest = int(np.diff(ends).max())
    return {
        "cu_seq_lens_q": cumulated,
        "cu_seq_lens_k": cumulated,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def sequence_boundaries(ends: Offsets) -> Mapping[str, Any]:
    """The lengths themselves, and in the place of the mask a single entry, so that none is made."""
    return {SEQUENCE_LENGTHS: tuple(np.diff(ends).tolist()), "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool)}
