"""Decide how a model keeps the sequences of a flat batch apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sftkit.config.commands import TrainConfig
from sftkit.training.data.boundaries import (
    BoundaryEncoder,
    flash_boundaries,
    position_boundaries,
    sequence_boundaries,
)
from sftkit.training.distributed import weights_are_sharded
from sftkit.training.mixed_precision import mixed_precision
from sftkit.training.models.capabilities import Capabilities, capabilities_by_class, probe_capabilities
from sftkit.training.models.sequence_attention import (
    SEQUENCE_ATTENTION,
    passes_sliding_window,
    supports_sequence_attention,
    use_sdpa_attention,
    use_sequence_attention,
)
from sftkit.training.trials.runs import evaluation_mode, probe
from sftkit.training.trials.sequence_rope import use_sequence_rope

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments


def determine_capabilities(model: PreTrainedModel, config: TrainConfig, arguments: TrainingArguments) -> Capabilities:
    """Probe what the model can do, on the device it trains on, and choose its attention for flat batches.

    A model that uses SDPA, and was not asked to use another attention, is switched to `sequence_attention.py` if that
    keeps sequences apart; otherwise it is switched back. A model with sharded weights cannot be run here: its class
    decides. Rotary embeddings that depend on the length of a sequence are computed for each sequence.
    """
    use_sequence_rope(model)
    if weights_are_sharded(arguments):
        return capabilities_by_class(model)
    if getattr(model, "quantization_method", None) is None:
        model.to(arguments.device)  # type: ignore[arg-type]  # transformers' type stub takes no device
    precision = mixed_precision(arguments)
    may_switch = config.attn_implementation is None and config.padding_free != "false" and not arguments.torch_compile
    if may_switch and supports_sequence_attention(model) and _passes_sliding_window(model, precision):
        use_sequence_attention(model)
        capabilities = probe_capabilities(model, boundary_encoder_for(model), precision)
        if capabilities.separates_sequences:
            return capabilities
        use_sdpa_attention(model)
    return probe_capabilities(model, boundary_encoder_for(model), precision)


def _passes_sliding_window(model: PreTrainedModel, precision: torch.dtype | None) -> bool:
    with evaluation_mode(model, precision):
        return probe("sliding windows", lambda: passes_sliding_window(model))


def boundary_encoder_for(model: PreTrainedModel) -> BoundaryEncoder:
    """The boundary encoder that fits the attention of a model."""
    attention = str(getattr(model.config, "_attn_implementation", ""))
    if attention == SEQUENCE_ATTENTION:
        return sequence_boundaries
    return flash_boundaries if attention.startswith("flash") else position_boundaries
