"""Try whether a model computes several sequences in one batch as it computes each alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from sftkit.core.rows import INPUT_IDS
from sftkit.training.data.boundaries import BoundaryEncoder
from sftkit.training.data.collation import CollatedBatch, FlatCollator, PaddingCollator
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.trials.positions import configured_positions
from sftkit.training.trials.runs import close, logits, probe, random_sequences
from sftkit.training.trials.sequence_rope import depends_on_length
from sftkit.training.trials.short_spans import SHORT_SPAN, short_spans

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COMPARED = 2
"""The last sequences, of which one is long and one is short, are compared. Others come before both."""


def try_layouts(model: PreTrainedModel, boundaries: BoundaryEncoder) -> tuple[bool, bool]:
    """Whether sequences in a flat batch, and those in a padded batch, give the logits of each alone.

    The sequences go beyond every window and chunk of the model, which are shortened for the trial. A model that does
    not run with short ones is not tried with a flat batch. Padding is only tried if a flat batch is not right.
    """
    with short_spans(model) as span:
        runs, flat, padded = _try(model, boundaries, span)
    if not runs:
        flat, padded = False, _try(model, boundaries, SHORT_SPAN)[2]
    return flat, padded


def _try(model: PreTrainedModel, boundaries: BoundaryEncoder, span: int) -> tuple[bool, bool, bool]:
    """Whether a model runs on single sequences, and is right with flat and with padded batches of them."""
    most = configured_positions(model) or span * 3
    sequences = random_sequences(model, [min(length, most) for length in _lengths(span)])
    alone: list[torch.Tensor] = []

    def run_each() -> bool:
        alone.extend(_alone(model, each) for each in sequences[-_COMPARED:])
        return True

    if not probe("single sequences", run_each):
        return False, False, False
    expected = torch.cat(alone, dim=1)
    flat = FlatCollator(trim_head=False, boundaries=boundaries)(sequences)
    if probe("concatenated sequences", lambda: close(logits(model, flat)[:, -expected.shape[1] :], expected)):
        return True, True, True
    padded = PaddingCollator(trim_head=False, pad_token_id=0, positions=depends_on_length(model))(sequences)
    return True, False, probe("padded sequences", lambda: close(_without_padding(model, padded, alone), expected))


def _lengths(span: int) -> tuple[int, ...]:
    """Tokens of sequences that go beyond a span twice, not at all, and once; one has a single token."""
    return (2 * span + 3, 1, 5, span + span // 2 + 3)


def _alone(model: PreTrainedModel, sequence: TokenSequences) -> torch.Tensor:
    """Logits of one sequence as in inference: nothing but its tokens is given."""
    ids = torch.from_numpy(sequence.input_ids.values.astype(np.int64))[None]
    return logits(model, {INPUT_IDS: ids, "use_cache": False})


def _without_padding(model: PreTrainedModel, batch: CollatedBatch, alone: Sequence[torch.Tensor]) -> torch.Tensor:
    rows = logits(model, batch)[-len(alone) :]
    return torch.cat([rows[row : row + 1, : each.shape[1]] for row, each in enumerate(alone)], dim=1)
