"""Decide whether a run computes its loss in chunks, and of how many positions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from sftkit.config.commands import TrainConfig
from sftkit.core.rows import LABELS, Ragged
from sftkit.errors import TrainingError
from sftkit.training.data.collation import SHIFT_LABELS, FlatCollator
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.distributed import weights_are_sharded
from sftkit.training.loss.chunked_model import ChunkedForward, decoder_candidates, use_chunked_loss
from sftkit.training.mixed_precision import mixed_precision
from sftkit.training.models.capabilities import Capabilities
from sftkit.training.trials.runs import evaluation_mode, probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

_LOGITS_OF_CHUNK = 1 << 26
"""Logits of a chunk if its size is not given: 512 positions with a vocabulary of 131,072, in float32 256 MiB."""

_PROBED_TOKENS = 8
_PROBED_CHUNK = 3
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5}  # of the loss
_TOLERANCE_16_BITS = 1e-2


def chunk_loss(
    model: PreTrainedModel, config: TrainConfig, arguments: TrainingArguments, capabilities: Capabilities
) -> int | None:
    """Let the model compute its loss in chunks if the run asks for it, or if nothing is in the way.

    Args:
        model: on the device it trains on, without adapters; its `forward` is replaced.
        config: the run; `loss_chunk_size` says how many positions, 0 for no chunks.
        arguments: its training arguments.
        capabilities: of the model.

    Returns:
        Positions of a chunk; None if it does not.

    Raises:
        TrainingError: the run asks for chunks, and the model cannot compute them.
    """
    size = config.loss_chunk_size
    if size == 0 or (size is None and _has_own_way(arguments)):
        return None
    decoder = _decoder(model, arguments) if capabilities.supports_logits_to_keep else None
    if decoder is not None:
        size = size or _default_size(model)
        use_chunked_loss(
            model,
            size,
            sums_loss=capabilities.sums_loss,
            decoder=decoder,
            compare=weights_are_sharded(arguments),
        )
        return size
    if size is not None:
        obstacle = (
            "does not compute the logits of a position from its hidden state alone"
            if capabilities.supports_logits_to_keep
            else "cannot run its head at chosen positions (logits_to_keep)"
        )
        raise TrainingError(f"loss_chunk_size: {type(model).__name__} {obstacle}; remove loss_chunk_size")
    return None


def planned_chunk_size(
    model: PreTrainedModel,
    config: TrainConfig,
    arguments: TrainingArguments,
    capabilities: Capabilities,
    *,
    shards_weights: bool,
) -> int | None:
    """How many positions a chunk is expected to have, for a model that cannot be run; None for no chunks.

    Liger's fused kernel computes in chunks, too.
    """
    size = config.loss_chunk_size
    if arguments.use_liger_kernel:
        return _default_size(model)
    if size == 0 or (size is None and (arguments.torch_compile or shards_weights)):
        return None
    possible = capabilities.supports_logits_to_keep and decoder_candidates(model)
    return (size or _default_size(model)) if possible else None


def _has_own_way(arguments: TrainingArguments) -> bool:
    """Whether the loss is left to a compiler or to fused kernels, or the weights are not all on this process."""
    return bool(arguments.torch_compile or arguments.use_liger_kernel or weights_are_sharded(arguments))


def _decoder(model: PreTrainedModel, arguments: TrainingArguments) -> Any:
    """The module whose hidden states give the loss in chunks; None if there is none."""
    candidates = decoder_candidates(model)
    if weights_are_sharded(arguments):
        return next(iter(candidates), None)  # compared with the model's own logits in the first step
    precision = mixed_precision(arguments)
    with evaluation_mode(model, precision):
        for decoder in candidates:
            if probe("the loss in chunks", partial(_chunks_give_the_loss, model, decoder)):
                return decoder
    return None


def _chunks_give_the_loss(model: PreTrainedModel, decoder: Any) -> bool:
    """Whether the loss of a few tokens in chunks is that of the model's logits, with and without label smoothing."""
    embedding: Any = model.get_input_embeddings()
    ids = np.arange(_PROBED_TOKENS, dtype=np.int32) * 7919 % embedding.weight.shape[0]
    batch = FlatCollator(trim_head=True)([TokenSequences(Ragged.from_lists([ids]), Ragged.from_lists([ids]))])
    inputs: dict[str, Any] = dict(batch.to(model.device))
    labels = inputs[LABELS][0]
    without_labels = {name: value for name, value in inputs.items() if name not in (LABELS, SHIFT_LABELS)}
    logits = model(**without_labels).logits
    chunked = ChunkedForward(model, _PROBED_CHUNK, decoder=decoder)
    items = torch.ones((), device=model.device)
    tolerance = _TOLERANCE.get(logits.dtype, _TOLERANCE_16_BITS)
    for smoothing in (0.0, 0.5):
        expected = functional.cross_entropy(logits[0].float(), labels, reduction="sum", label_smoothing=smoothing)
        found = chunked(**inputs, num_items_in_batch=items, label_smoothing=smoothing).loss
        if not bool((found - expected).abs() <= tolerance * expected.abs()):
            return False
    return True


def _default_size(model: PreTrainedModel) -> int:
    output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    embedding: Any = model.get_input_embeddings()
    vocabulary = (output if output is not None else embedding).weight.shape[0]
    return max(1, _LOGITS_OF_CHUNK // int(vocabulary))
