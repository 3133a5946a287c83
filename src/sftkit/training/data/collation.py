"""Collate sequences into the arguments of a model, either concatenated without padding or padded.

The output head only has to run at positions that predict a trained token: it is much of the work, and most tokens of a
chat are not trained. `logits_to_keep` names these positions to the model, and `shift_labels` gives the label that each
of them predicts, so that the model does not shift labels itself.
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
from sftkit.training.data.loss_details import LossDetails, details_of, loss_details
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.data.work_counts import WorkCounts

SHIFT_LABELS = "shift_labels"
LOGITS_TO_KEEP = "logits_to_keep"

_WIDTH_MULTIPLE = 8  # tensor cores work on multiples of 8

_NO_WORK = WorkCounts()

_Integers = npt.NDArray[np.int64]


class CollatedBatch(dict[str, Any]):
    """One micro-batch: the keyword arguments of the model, and what is known of it beside them.

    Attributes:
        counts: how much work it is.
        details: of the labels that it predicts; None if the data say nothing of them, or without labels.
    """

    def __init__(
        self, inputs: Mapping[str, Any], counts: WorkCounts = _NO_WORK, details: LossDetails | None = None
    ) -> None:
        super().__init__(inputs)
        self.counts = counts
        self.details = details

    @property
    def loss_weight(self) -> float:
        """The sum of the weights of its labels: without weights, the number of trained tokens."""
        return self.counts.trained_tokens if self.details is None else self.details.total_weight

    def to(self, device: torch.device | str) -> CollatedBatch:
        """Copy the batch to a device."""
        moved = {name: value.to(device) if torch.is_tensor(value) else value for name, value in self.items()}
        return CollatedBatch(moved, self.counts, None if self.details is None else self.details.to(device))


class Collator(Protocol):
    """Makes one micro-batch of some sequences."""

    def __call__(self, sequences: Sequence[TokenSequences]) -> CollatedBatch:
        """Collate sequences.

        No sequences give a batch of one token without a loss: a process without rows must still run the model, as
        the others wait for its (zero) gradients.
        """


@dataclass(frozen=True)
class FlatCollator:
    """Concatenates all sequences into one row, without padding.

    Each position predicts the next token of its sequence. So the label predicted at position i is that of token
    i + 1, except at the last position of a sequence, where it is -100: the next token belongs to another sequence.
    `position_ids` restart at 0 with every sequence. There is no attention mask: models of transformers derive from the
    positions where sequences end, and attention that can do so faster from what `boundaries` adds.

    The batch holds int64 tensors:

    - `input_ids` and `position_ids`, shape (1, tokens);
    - without `trim_head`: `labels`, shape (1, tokens), for a model that shifts them by one itself; the first label of
      every sequence is -100;
    - with `trim_head`: `logits_to_keep`, shape (positions,), the positions that predict a trained token, and `labels`
      and `shift_labels`, both shape (1, positions), the labels predicted there.
    """

    trim_head: bool = False
    """Whether the output head runs only at positions that predict a trained token."""

    boundaries: BoundaryEncoder = position_boundaries

    def __call__(self, sequences: Sequence[TokenSequences]) -> CollatedBatch:
        """Concatenate the sequences."""
        input_ids, labels = _concatenated(sequences)
        tokens = len(input_ids.values)
        starts = input_ids.offsets[:-1]
        next_labels = np.full(tokens, IGNORE_INDEX, np.int64)
        next_labels[:-1] = labels.values[1:]
        next_labels[starts[1:] - 1] = IGNORE_INDEX
        trained = next_labels != IGNORE_INDEX
        positions = np.arange(tokens) - np.repeat(starts, input_ids.lengths)
        inputs: dict[str, Any] = {
            INPUT_IDS: _as_row(input_ids.values),
            "position_ids": _as_row(positions),
            "use_cache": False,
        }
        if self.trim_head:
            inputs |= _head_arguments(trained, next_labels[None])
        else:
            shifted = np.full(tokens, IGNORE_INDEX, np.int64)
            shifted[1:] = next_labels[:-1]
            inputs[LABELS] = _as_row(shifted)
        inputs |= self.boundaries(input_ids.offsets)
        everywhere = np.ones((1, tokens), np.bool_)
        details = loss_details(details_of(sequences), everywhere, trained[None], _loss_columns(inputs))
        return CollatedBatch(inputs, _counts(sequences, trained, tokens, self.trim_head), details)


@dataclass(frozen=True)
class PaddingCollator:
    """Makes each sequence a row, padded on the right to the longest, rounded up to a multiple of 8 tokens.

    The batch holds int64 tensors:

    - `input_ids`, shape (sequences, width), padded with `pad_token_id`;
    - `attention_mask`, shape (sequences, width), 1 where there is a token;
    - with `positions`: `position_ids`, shape (sequences, width), 0 at padding;
    - without `trim_head`: `labels`, shape (sequences, width), padded with -100;
    - with `trim_head`: `logits_to_keep`, shape (positions,), the columns in which any row predicts a trained token, and
      `labels` and `shift_labels`, both shape (sequences, positions), the labels predicted there.
    """

    trim_head: bool
    """Whether the output head runs only at columns that predict a trained token."""

    pad_token_id: int

    positions: bool = False
    """Whether the batch has positions, from which `sequence_rope.py` reads the length of each sequence."""

    width_multiple: int = _WIDTH_MULTIPLE
    """What the number of columns is rounded up to a multiple of."""

    def __call__(self, sequences: Sequence[TokenSequences]) -> CollatedBatch:
        """Pad the sequences to one width."""
        flat_ids, flat_labels = _concatenated(sequences)
        shape = (len(flat_ids), -(-int(flat_ids.lengths.max()) // self.width_multiple) * self.width_multiple)
        input_ids = np.full(shape, self.pad_token_id, np.int64)
        labels = np.full(shape, IGNORE_INDEX, np.int64)
        mask = np.arange(shape[1]) < flat_ids.lengths[:, None]
        input_ids[mask] = flat_ids.values
        labels[mask] = flat_labels.values
        labels[:, 0] = IGNORE_INDEX
        next_labels = np.full(shape, IGNORE_INDEX, np.int64)
        next_labels[:, :-1] = labels[:, 1:]
        trained = next_labels != IGNORE_INDEX
        inputs: dict[str, Any] = {
            INPUT_IDS: torch.from_numpy(input_ids),
            ATTENTION_MASK: torch.from_numpy(mask.astype(np.int64)),
            "use_cache": False,
        }
        if self.positions:
            inputs["position_ids"] = torch.from_numpy(np.where(mask, np.arange(shape[1]), 0))
        if self.trim_head:
            inputs |= _head_arguments(trained.any(axis=0), next_labels)
        else:
            inputs[LABELS] = torch.from_numpy(labels)
        details = loss_details(details_of(sequences), mask, trained, _loss_columns(inputs))
        return CollatedBatch(inputs, _counts(sequences, trained, input_ids.size, self.trim_head), details)


def _concatenated(sequences: Sequence[TokenSequences]) -> tuple[Ragged, Ragged]:
    """The ids and the labels of all sequences as one column each; without sequences, one token without a loss."""
    if not any(len(each.input_ids) for each in sequences):
        offsets: Offsets = np.array([0, 1])
        return Ragged(np.zeros(1, np.int32), offsets), Ragged(np.full(1, IGNORE_INDEX, np.int32), offsets)
    lengths = np.concatenate([each.input_ids.lengths for each in sequences])
    ids, labels = (
        np.concatenate([column.values for column in columns])
        for columns in zip(*((each.input_ids, each.labels) for each in sequences), strict=True)
    )
    return Ragged(ids, lengths_to_offsets(lengths)), Ragged(labels, lengths_to_offsets(lengths))


def _head_arguments(positions: npt.NDArray[np.bool_], next_labels: _Integers) -> dict[str, torch.Tensor]:
    """The positions at which the head runs, and the labels predicted there."""
    chosen = np.flatnonzero(positions)
    if not len(chosen):
        chosen = np.zeros(1, np.int64)  # the head must get gradients too, or other processes would wait for them
    labels = torch.from_numpy(np.ascontiguousarray(next_labels[:, chosen]))
    return {LOGITS_TO_KEEP: torch.from_numpy(chosen), LABELS: labels, SHIFT_LABELS: labels}


def _loss_columns(inputs: Mapping[str, Any]) -> _Integers | slice:
    """The columns that the loss is computed from."""
    chosen: _Integers | slice = inputs[LOGITS_TO_KEEP].numpy() if LOGITS_TO_KEEP in inputs else slice(None)
    return chosen


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


def _as_row(values: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64))[None]
