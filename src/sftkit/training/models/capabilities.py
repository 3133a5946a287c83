"""What a model can do, tried out on a few tokens rather than looked up in a list of architectures."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from sftkit.core.error_text import single_line
from sftkit.core.rows import IGNORE_INDEX, LABELS, Ragged
from sftkit.training.data.boundaries import BoundaryEncoder, position_boundaries
from sftkit.training.data.collation import LOGITS_TO_KEEP, SHIFT_LABELS, FlatCollator
from sftkit.training.data.row_groups import TokenSequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

_LENGTHS = (9, 1, 13)  # tokens of the sequences that are tried, one of a single token among them
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_TOLERANCE_16_BITS = 2e-2


@dataclass(frozen=True)
class Capabilities:
    """What a model can do with the batches of `collation.py`."""

    separates_sequences: bool
    """In a flat batch (sequences concatenated, positions restarting at 0), no sequence sees another."""

    supports_logits_to_keep: bool
    """The output head can be run at chosen positions only, and gives the same logits there."""

    sums_loss: bool
    """Its own loss, given labels and `num_items_in_batch`, is the sum of the cross entropies over that number."""


def probe_capabilities(
    model: PreTrainedModel, boundaries: BoundaryEncoder = position_boundaries, precision: torch.dtype | None = None
) -> Capabilities:
    """Run a model on a few made-up tokens, without training it, and compare with what should come out.

    Args:
        model: with its weights, on the device it trains on.
        boundaries: how it is told where sequences end, besides by positions.
        precision: of mixed-precision training; None for the model's own.
    """
    with evaluation_mode(model, precision):
        separates_sequences = probe("laying sequences end to end", lambda: _keeps_apart(model, boundaries))
        trims = _takes(model, LOGITS_TO_KEEP) and probe("choosing positions of the head", lambda: _trims(model))
        sums = _takes(model, LABELS) and probe("the loss", lambda: _sums(model, trims))
    return Capabilities(separates_sequences, trims, sums)


def capabilities_by_class(model: PreTrainedModel) -> Capabilities:
    """What a model should be able to do, for one that cannot be tried: its weights are spread, or not there yet."""
    attends = bool(getattr(model, "_supports_attention_backend", False)) and not getattr(model, "_is_stateful", False)
    return Capabilities(attends and _takes(model, "position_ids"), _takes(model, LOGITS_TO_KEEP), _takes(model, LABELS))


def _keeps_apart(model: PreTrainedModel, boundaries: BoundaryEncoder) -> bool:
    """Whether the last sequence comes out as it does alone, whatever is in front of it."""
    collate = FlatCollator(trim_head=False, boundaries=boundaries)
    *others, last = _made_up(model, seed=0)
    alone = _logits(model, collate([last]))
    after = _logits(model, collate([*others, last]))[:, -_LENGTHS[-1] :]
    after_others = _logits(model, collate([*_made_up(model, seed=1)[:-1], last]))[:, -_LENGTHS[-1] :]
    return _close(after, alone) and _close(after_others, after)


def _trims(model: PreTrainedModel) -> bool:
    """Whether the head gives the same logits for chosen positions as among all."""
    sequences = _made_up(model, seed=0)[-1:]
    whole = _logits(model, FlatCollator(trim_head=False)(sequences))
    batch = FlatCollator(trim_head=True)(sequences)
    chosen = _logits(model, batch)
    return _close(chosen, whole[:, batch[LOGITS_TO_KEEP]])


def _sums(model: PreTrainedModel, trim_head: bool) -> bool:
    items = 7
    sequences = _made_up(model, seed=0)[-1:]
    whole = FlatCollator(trim_head=False)(sequences)
    logits = _logits(model, whole)[0, :-1].float()
    labels = whole[LABELS][0, 1:].to(logits.device)
    expected = functional.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum") / items
    batch = FlatCollator(trim_head=True)(sequences) if trim_head else whole
    outputs = model(**_placed(model, batch), num_items_in_batch=torch.tensor(items, device=model.device))
    loss = outputs.loss
    if getattr(outputs, "aux_loss", None) is not None and hasattr(model, "router_aux_loss_coef"):
        loss = loss - model.router_aux_loss_coef * outputs.aux_loss.to(loss.device)
    return _close(loss, expected)


def _made_up(model: PreTrainedModel, seed: int) -> list[TokenSequences]:
    """Sequences of random ids, every other token of which is trained."""
    generator = np.random.default_rng(seed)
    embedding: Any = model.get_input_embeddings()
    ids = [generator.integers(0, embedding.weight.shape[0], length, np.int32) for length in _LENGTHS]
    labels = [np.where(np.arange(len(row)) % 2, row, np.int32(IGNORE_INDEX)) for row in ids]
    return [
        TokenSequences(Ragged.from_lists([row]), Ragged.from_lists([marks]))
        for row, marks in zip(ids, labels, strict=True)
    ]


def _logits(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    inputs = {name: value for name, value in batch.items() if name not in (LABELS, SHIFT_LABELS)}
    logits: torch.Tensor = model(**_placed(model, inputs)).logits
    return logits


def _placed(model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.shape != expected.shape or not bool(torch.isfinite(expected).all()):
        return False
    tolerance = _TOLERANCE.get(expected.dtype, _TOLERANCE_16_BITS)
    difference, scale = (found.float() - expected.float()).abs().max(), expected.float().abs().max()
    return bool(difference <= tolerance * scale)


def _takes(model: PreTrainedModel, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def probe(what: str, trial: Callable[[], bool]) -> bool:
    """What a trial finds; nothing good, where it fails."""
    try:
        return bool(trial())
    except Exception as error:  # a model fails in its own way at what it was not made for
        _log.info("trying %s: %s", what, single_line(error))
        return False


@contextmanager
def evaluation_mode(model: PreTrainedModel, precision: torch.dtype | None) -> Iterator[None]:
    """Without dropout and gradients, in mixed precision if asked; model and random numbers are left as they were."""
    mixed = torch.autocast(model.device.type, precision) if precision is not None else nullcontext()
    training = model.training
    model.train(False)
    try:
        with torch.no_grad(), torch.random.fork_rng(), mixed:
            yield
    finally:
        model.train(training)
