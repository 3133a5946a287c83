"""Run a model on a few random tokens, without training it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sftkit.core.error_text import single_line
from sftkit.core.rows import IGNORE_INDEX, LABELS, Ragged
from sftkit.training.data.collation import SHIFT_LABELS
from sftkit.training.data.rows.row_groups import TokenSequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # of the largest absolute value
_TOLERANCE_16_BITS = 2e-2


def random_sequences(model: PreTrainedModel, lengths: Sequence[int]) -> list[TokenSequences]:
    """Sequences of random ids with so many tokens; every other token is trained.

    None is that of padding: its embedding is often zero, and then has no clear order among others.
    """
    generator = np.random.default_rng(0)
    embedding: Any = model.get_input_embeddings()
    known = np.arange(embedding.weight.shape[0], dtype=np.int32)
    known = known[known != getattr(embedding, "padding_idx", None)]
    ids = [generator.choice(known, length) for length in lengths]
    labels = [np.where(np.arange(len(row)) % 2, row, np.int32(IGNORE_INDEX)) for row in ids]
    return [
        TokenSequences(Ragged.from_lists([row]), Ragged.from_lists([row_labels]))
        for row, row_labels in zip(ids, labels, strict=True)
    ]


def logits(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    """Logits of a batch; its labels are not given to the model."""
    inputs = {name: value for name, value in batch.items() if name not in (LABELS, SHIFT_LABELS)}
    output: torch.Tensor = model(**on_device(model, inputs)).logits
    return output


def on_device(model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a batch, on the device of the model."""
    return {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}


def close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two tensors differ by no more than rounding."""
    if actual.shape != expected.shape or not bool(torch.isfinite(expected).all()):
        return False
    tolerance = _TOLERANCE.get(expected.dtype, _TOLERANCE_16_BITS)
    difference, scale = (actual.float() - expected.float()).abs().max(), expected.float().abs().max()
    return bool(difference <= tolerance * scale)


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
    with _restored(model, precision), torch.no_grad():
        model.train(False)
        yield


@contextmanager
def training_mode(model: PreTrainedModel, precision: torch.dtype | None) -> Iterator[None]:
    """Run as in training, with gradients; restore model and random state afterwards."""
    with _restored(model, precision), torch.enable_grad():
        model.train()
        yield


@contextmanager
def _restored(model: PreTrainedModel, precision: torch.dtype | None) -> Iterator[None]:
    mixed = torch.autocast(model.device.type, precision) if precision is not None else nullcontext()
    training = model.training
    try:
        with torch.random.fork_rng(), mixed:
            yield
    finally:
        model.train(training)
