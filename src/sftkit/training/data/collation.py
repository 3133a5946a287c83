"""Sequences -> what a model takes: laid end to end without padding, or padded.

Of the output head only the positions are asked for that predict a trained token (`logits_to_keep`), and their labels
are given as `shift_labels`, already next to them: the head is much of the work, and most of a chat is not trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from sftkit.core.rows import ATTENTION_MASK, IGNORE_INDEX, INPUT_IDS, LABELS, Offsets, Ragged, lengths_to_offsets
from sftkit.training.data.boundaries import BoundaryEncoder, position_boundaries
from sftkit.training.data.row_groups import TokenSequences
from sftkit.training.data.work_counts import WorkCounts

SHIFT_LABELS = "shift_labels"
LOGITS_TO_KEEP = "logits_to_keep"

_MULTIPLE = 8  # tensor cores work on multiples of 8

_UNKNOWN = WorkCounts()

Integers = npt.NDArray[np.int64]


class CollatedBatch(dict[str, Any]):
    """One micro-batch: what the model is called with, and how much work that is."""

    def __init__(self, inputs: Mapping[str, Any], counts: WorkCounts = _UNKNOWN) -> None:
        super().__init__(inputs)
        self.counts = counts


class Collator(Protocol):
    """Sequences -> one micro-batch."""

    def __call__(self, sequences: Sequence[TokenSequences]) -> CollatedBatch:
        """Of no sequences: a batch of one token without a loss, so that a process without work keeps step."""


@dataclass(frozen=True)
class FlatCollator:
    """All sequences in one row, without padding; `position_ids` start anew with each.

    Gives int64 tensors: `input_ids`, `position_ids` and `labels` of shape (1, tokens), where the first label of every
    sequence is -100. With `trim_head`, `logits_to_keep` of shape (positions,), and `labels` and `shift_labels` of
    shape (1, positions), instead. There is no attention mask: models of transformers tell sequences apart by their
    positions, and attention that is faster otherwise by what `boundaries` adds.
    """

    trim_head: bool
    boundaries: BoundaryEncoder = position_boundaries

    def __call__(self, sequences: Sequence[TokenSequences]) -> CollatedBatch:
        """Lay the sequences end to end."""
        input_ids, labels = _joined(sequences)
        tokens = len(input_ids.values)
        starts = input_ids.offsets[:-1]
        following = np.full(tokens, IGNORE_INDEX, np.int64)  # the label of each position's next token
        following[:-1] = labels.values[1:]
        following[starts[1:] - 1] = IGNORE_INDEX
        trained = following != IGNORE_INDEX
        positions = np.arange(tokens) - np.repeat(starts, input_ids.lengths)
        inputs: dict[str, Any] = {
            INPUT_IDS: _row(input_ids.values),
            "position_ids": _row(positions),
            "use_cache": False,
        }
        if self.trim_head:
            inputs |= _head(trained, following[None])
        else:
            shifted = np.full(tokens, IGNORE_INDEX, np.int64)
            shifted[1:] = following[:-1]
            inputs[LABELS] = _row(shifted)
        inputs |= self.boundaries(input_ids.offsets)
        return CollatedBatch(inputs, _counts(sequences, trained, tokens, self.trim_head))


@dataclass(frozen=True)
class PaddingCollator:
    """Every sequence a row, padded on the right to the longest, rounded up to a multiple of 8 tokens.

    Gives int64 tensors of shape (sequences, width): `input_ids` padded with `pad_token_id`, `labels` with -100, and
    `attention_mask`, 1 where there is a token. With `trim_head`, `logits_to_keep` of shape (positions,) holds the
    columns in which any row predicts a trained token, and `labels` and `shift_labels` are of shape
    (sequences, positions).
    """

    trim_head: bool
    pad_token_id: int

    def __call__(self, sequences: Sequence[TokenSequences]) -> CollatedBatch:
        """Pad the sequences to one width."""
        flat_ids, flat_labels = _joined(sequences)
        shape = (len(flat_ids), -(-int(flat_ids.lengths.max()) // _MULTIPLE) * _MULTIPLE)
        input_ids = np.full(shape, self.pad_token_id, np.int64)
        labels = np.full(shape, IGNORE_INDEX, np.int64)
        mask = np.arange(shape[1]) < flat_ids.lengths[:, None]
        input_ids[mask] = flat_ids.values
        labels[mask] = flat_labels.values
        labels[:, 0] = IGNORE_INDEX
        following = np.full(shape, IGNORE_INDEX, np.int64)
        following[:, :-1] = labels[:, 1:]
        trained = following != IGNORE_INDEX
        inputs: dict[str, Any] = {
            INPUT_IDS: torch.from_numpy(input_ids),
            ATTENTION_MASK: torch.from_numpy(mask.astype(np.int64)),
            "use_cache": False,
        }
        inputs |= _head(trained.any(axis=0), following) if self.trim_head else {LABELS: torch.from_numpy(labels)}
        return CollatedBatch(inputs, _counts(sequences, trained, input_ids.size, self.trim_head))


def _joined(sequences: Sequence[TokenSequences]) -> tuple[Ragged, Ragged]:
    """All sequences as one column each of ids and labels; of none, one token without a loss."""
    if not any(len(each.input_ids) for each in sequences):
        one: Offsets = np.array([0, 1])
        return Ragged(np.zeros(1, np.int32), one), Ragged(np.full(1, IGNORE_INDEX, np.int32), one)
    lengths = np.concatenate([each.input_ids.lengths for each in sequences])
    ids, labels = (
        np.concatenate([column.values for column in columns])
        for columns in zip(*((each.input_ids, each.labels) for each in sequences), strict=True)
    )
    return Ragged(ids, lengths_to_offsets(lengths)), Ragged(labels, lengths_to_offsets(lengths))


def _head(positions: npt.NDArray[np.bool_], following: Integers) -> dict[str, torch.Tensor]:
    """The positions that the head is asked for, and the labels of what they predict."""
    chosen = np.flatnonzero(positions)
    if not len(chosen):
        chosen = np.zeros(1, np.int64)  # every parameter takes part, so that no process waits for another's gradients
    labels = torch.from_numpy(np.ascontiguousarray(following[:, chosen]))
    return {LOGITS_TO_KEEP: torch.from_numpy(chosen), LABELS: labels, SHIFT_LABELS: labels}


def _counts(
    sequences: Sequence[TokenSequences], trained: npt.NDArray[np.bool_], slots: int, trim_head: bool
) -> WorkCounts:
    lengths = np.concatenate([np.zeros(0, np.int64), *(each.input_ids.lengths for each in sequences)])
    columns = trained.any(axis=0) if trained.ndim > 1 else trained
    rows = trained.shape[0] if trained.ndim > 1 else 1
    return WorkCounts(
        tokens=int(lengths.sum()),
        trained_tokens=int(trained.sum()),
        slots=slots,
        squared_lengths=int((lengths**2).sum()),
        head_positions=int(columns.sum()) * rows if trim_head else slots,
    )


def _row(values: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64))[None]
