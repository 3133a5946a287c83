"""Probe what a model can do by running it on a few tokens, rather than from a list of architectures."""

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

_LENGTHS = (9, 1, 13)  # tokens of the probed sequences; one has a single token
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # of the largest absolute value
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
    """Run a model on random tokens, without training it, and compare its outputs with the expected ones.

    Args:
        model: with its weights, on the device it trains on.
        boundaries: arguments that say where sequences end, in addition to positions.
        precision: of mixed-precision training; None for the data type of the model.
    """
    with evaluation_mode(model, precision):
        separates = probe("concatenated sequences", lambda: _separates_sequences(model, boundaries))
        trims = _accepts(model, LOGITS_TO_KEEP) and probe(LOGITS_TO_KEEP, lambda: _keeps_logits(model))
        sums = _accepts(model, LABELS) and probe("the loss", lambda: _sums_loss(model, trims))
    return Capabilities(separates, trims, sums)


def capabilities_by_class(model: PreTrainedModel) -> Capabilities:
    """Capabilities expected of the class of a model, for one that cannot be run yet because its weights are sharded."""
    attends = bool(getattr(model, "_supports_attention_backend", False)) and not getattr(model, "_is_stateful", False)
    return Capabilities(
        separates_sequences=attends and _accepts(model, "position_ids"),
        supports_logits_to_keep=_accepts(model, LOGITS_TO_KEEP),
        sums_loss=_accepts(model, LABELS),
    )


def _separates_sequences(model: PreTrainedModel, boundaries: BoundaryEncoder) -> bool:
    """Whether the logits of the last sequence are the same alone and after other sequences, whatever those are."""
    collate = FlatCollator(trim_head=False, boundaries=boundaries)
    *others, last = _random_sequences(model, seed=0)
    alone = _logits(model, collate([last]))
    after = _logits(model, collate([*others, last]))[:, -_LENGTHS[-1] :]
    after_others = _logits(model, collate([*_random_sequences(model, seed=1)[:-1], last]))[:, -_LENGTHS[-1] :]
    return _close(after, alone) and _close(after_others, after)


def _keeps_logits(model: PreTrainedModel) -> bool:
    """Whether the logits at chosen positions are those of a run at all positions."""
    sequences = _random_sequences(model, seed=0)[-1:]
    everywhere = _logits(model, FlatCollator(trim_head=False)(sequences))
    batch = FlatCollator(trim_head=True)(sequences)
    chosen = _logits(model, batch)
    return _close(chosen, everywhere[:, batch[LOGITS_TO_KEEP]])


def _sums_loss(model: PreTrainedModel, trim_head: bool) -> bool:
    items = 7
    sequences = _random_sequences(model, seed=0)[-1:]
    untrimmed = FlatCollator(trim_head=False)(sequences)
    logits = _logits(model, untrimmed)[0, :-1].float()
    labels = untrimmed[LABELS][0, 1:].to(logits.device)
    expected = functional.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum") / items
    batch = FlatCollator(trim_head=True)(sequences) if trim_head else untrimmed
    outputs = model(**_on_device(model, batch), num_items_in_batch=torch.tensor(items, device=model.device))
    loss = outputs.loss
    if getattr(outputs, "aux_loss", None) is not None and hasattr(model, "router_aux_loss_coef"):
        loss = loss - model.router_aux_loss_coef * outputs.aux_loss.to(loss.device)
    return _close(loss, expected)


def _random_sequences(model: PreTrainedModel, seed: int) -> list[TokenSequences]:
    """Sequences of random ids; every other token is trained."""
    generator = np.random.default_rng(seed)
    embedding: Any = model.get_input_embeddings()
    ids = [generator.integers(0, embedding.weight.shape[0], length, np.int32) for length in _LENGTHS]
    labels = [np.where(np.arange(len(row)) % 2, row, np.int32(IGNORE_INDEX)) for row in ids]
    return [
        TokenSequences(Ragged.from_lists([row]), Ragged.from_lists([row_labels]))
        for row, row_labels in zip(ids, labels, strict=True)
    ]


def _logits(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    inputs = {name: value for name, value in batch.items() if name not in (LABELS, SHIFT_LABELS)}
    logits: torch.Tensor = model(**_on_device(model, inputs)).logits
    return logits


def _on_device(model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}


def _close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    if actual.shape != expected.shape or not bool(torch.isfinite(expected).all()):
        return False
    tolerance = _TOLERANCE.get(expected.dtype, _TOLERANCE_16_BITS)
    difference, scale = (actual.float() - expected.float()).abs().max(), expected.float().abs().max()
    return bool(difference <= tolerance * scale)


def _accepts(model: PreTrainedModel, argument: str) -> bool:
    return argument in inspect.signature(model.forward).parameters


def probe(what: str, check: Callable[[], bool]) -> bool:
    """The result of a check; False if it raises."""
    try:
        return bool(check())
    except Exception as error:  # a model can raise anything when it is used in a way it was not made for
        _log.info("probing %s: %s", what, single_line(error))
        return False


@contextmanager
def evaluation_mode(model: PreTrainedModel, precision: torch.dtype | None) -> Iterator[None]:
    """Run without dropout and gradients, optionally in mixed precision; restore model and random state afterwards."""
    mixed = torch.autocast(model.device.type, precision) if precision is not None else nullcontext()
    training = model.training
    model.train(False)
    try:
        with torch.no_grad(), torch.random.fork_rng(), mixed:
            yield
    finally:
        model.train(training)
