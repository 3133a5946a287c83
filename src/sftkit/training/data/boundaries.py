"""Tell attention where the sequences of a flat batch end, in addition to `position_ids`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from sftkit.core.rows import Offsets

SEQUENCE_LENGTHS = "sequence_lengths"
"""The model argument that `sequence_attention.py` reads."""

BoundaryEncoder = Callable[[Offsets], Mapping[str, Any]]
"""Where sequences begin and end, int64, shape (sequences + 1,) -> extra arguments of the model."""


def position_boundaries(offsets: Offsets) -> Mapping[str, Any]:
    """No extra arguments: transformers derives a block-diagonal causal mask from the positions."""
    return {}


def flash_boundaries(offsets: Offsets) -> Mapping[str, Any]:
    """The arguments of flash attention (`cu_seq_lens_q`, ...). Computing them from positions would wait for the GPU."""
    cumulative = torch.from_numpy(offsets.astype(np.int32))
    longest = int(np.diff(offsets).max())
    return {
        "cu_seq_lens_q": cumulative,
        "cu_seq_lens_k": cumulative,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def sequence_boundaries(offsets: Offsets) -> Mapping[str, Any]:
    """The lengths of the sequences, and a mask of one entry per token so that transformers does not build a full one.

    Mixtures of experts use the mask, too: to leave padding out of their auxiliary loss.
    """
    return {
        SEQUENCE_LENGTHS: tuple(np.diff(offsets).tolist()),
        "attention_mask": torch.ones(1, 1, 1, int(offsets[-1]), dtype=torch.bool),
    }
