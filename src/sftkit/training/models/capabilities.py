"""Probe what a model can do by running it on a few tokens, rather than from a list of architectures."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from sftkit.core.rows import IGNORE_INDEX, LABELS
from sftkit.training.data.boundaries import BoundaryEncoder, position_boundaries
from sftkit.training.data.collation import LOGITS_TO_KEEP, FlatCollator
from sftkit.training.models.sequence_attention import has_usual_layers
from sftkit.training.trials.layouts import try_layouts
from sftkit.training.trials.runs import close, evaluation_mode, logits, on_device, probe, random_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LENGTH = 13  # tokens of the sequence of a trial


@dataclass(frozen=True)
class Capabilities:
    """What a model can do with the batches of `collation.py`."""

    separates_sequences: bool
    """In a flat batch (sequences concatenated, positions restarting at 0), no sequence sees another."""

    supports_logits_to_keep: bool
    """The output head can be run at chosen positions only, and gives the same logits there."""

    sums_loss: bool
    """Its own loss, given labels and `num_items_in_batch`, is the sum of the cross entropies over that number."""

    ignores_padding: bool = True
    """In a padded batch, every sequence gives the same as alone. Only tried if sequences are not separated."""


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
        separates, pads = try_layouts(model, boundaries)
        trims = _accepts(model, LOGITS_TO_KEEP) and probe(LOGITS_TO_KEEP, lambda: _keeps_logits(model))
        sums = _accepts(model, LABELS) and probe("the loss", lambda: _sums_loss(model, trims))
    return Capabilities(separates, trims, sums, pads)


def capabilities_by_class(model: PreTrainedModel) -> Capabilities:
    """Capabilities expected of the class of a model, for one that cannot be run yet because its weights are sharded."""
    attends = bool(getattr(model, "_supports_attention_backend", False)) and not getattr(model, "_is_stateful", False)
    return Capabilities(
        separates_sequences=attends and has_usual_layers(model) and _accepts(model, "position_ids"),
        supports_logits_to_keep=_accepts(model, LOGITS_TO_KEEP),
        sums_loss=_accepts(model, LABELS),
    )


def _keeps_logits(model: PreTrainedModel) -> bool:
    """Whether the logits at chosen positions are those of a run at all positions."""
    sequences = random_sequences(model, [_LENGTH])
    everywhere = logits(model, FlatCollator(trim_head=False)(sequences))
    batch = FlatCollator(trim_head=True)(sequences)
    chosen = logits(model, batch)
    return close(chosen, everywhere[:, batch[LOGITS_TO_KEEP]])


def _sums_loss(model: PreTrainedModel, trim_head: bool) -> bool:
    items = 7
    sequences = random_sequences(model, [_LENGTH])
    untrimmed = FlatCollator(trim_head=False)(sequences)
    predictions = logits(model, untrimmed)[0, :-1].float()
    labels = untrimmed[LABELS][0, 1:].to(predictions.device)
    expected = functional.cross_entropy(predictions, labels, ignore_index=IGNORE_INDEX, reduction="sum") / items
    batch = FlatCollator(trim_head=True)(sequences) if trim_head else untrimmed
    outputs = model(**on_device(model, batch), num_items_in_batch=torch.tensor(items, device=model.device))
    loss = outputs.loss
    if getattr(outputs, "aux_loss", None) is not None and hasattr(model, "router_aux_loss_coef"):
        loss = loss - model.router_aux_loss_coef * outputs.aux_loss.to(loss.device)
    return close(loss, expected)


def _accepts(model: PreTrainedModel, argument: str) -> bool:
    return argument in inspect.signature(model.forward).parameters
