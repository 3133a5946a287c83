"""SDPA attention over a flat batch, one sequence at a time.

transformers tells SDPA where sequences end with a mask of tokens x tokens: for a batch of 32,000 tokens a billion
entries, nearly all of them False. A single sequence needs no mask, and SDPA's causal kernels only compute the pairs
that are left. Flash attention does the same in one kernel; this module is for machines without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sftkit.training.data.boundaries import SEQUENCE_LENGTHS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SEQUENCE_ATTENTION = "sftkit_by_sequence"
"""The name under which transformers knows this attention."""

_RECORDING_ATTENTION = "sftkit_recording"
_SLIDING_WINDOW = "sliding_window"
_SUPPORTED_LAYERS = frozenset({"full_attention", "sliding_attention"})


def supports_sequence_attention(model: PreTrainedModel) -> bool:
    """Whether a model uses SDPA, and its attention is causal, with or without a sliding window."""
    return model.config._attn_implementation == "sdpa" and has_usual_layers(model)


def has_usual_layers(model: PreTrainedModel) -> bool:
    """Whether the layers of a model have causal attention, with or without a sliding window, as its config says."""
    settings: Any = model.config.get_text_config()
    layer_types = frozenset(getattr(settings, "layer_types", None) or ())
    chunked = getattr(settings, "attention_chunk_size", None) is not None
    return layer_types <= _SUPPORTED_LAYERS and not chunked


def use_sequence_attention(model: PreTrainedModel) -> None:
    """Compute attention one sequence at a time, for batches that say where sequences end; others as before."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(SEQUENCE_ATTENTION, _attention)
    AttentionMaskInterface.register(SEQUENCE_ATTENTION, sdpa_mask)
    model.set_attn_implementation(SEQUENCE_ATTENTION)


def use_sdpa_attention(model: PreTrainedModel) -> None:
    """Switch back to SDPA with a mask."""
    model.set_attn_implementation("sdpa")


def passes_sliding_window(model: PreTrainedModel) -> bool:
    """Whether a model with a sliding window passes it to attention; True for a model without one.

    Some models only put the window into the mask, which sequence attention does not build. The model is run on two
    tokens to find out, and uses SDPA afterwards.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    settings: Any = model.config.get_text_config()
    if getattr(settings, "sliding_window", None) is None and "sliding_attention" not in (
        getattr(settings, "layer_types", None) or ()
    ):
        return True
    window_passed: list[bool] = []

    def recording_attention(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **given: Any
    ) -> tuple[torch.Tensor, None]:
        window_passed.append(_SLIDING_WINDOW in given)
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **given)
        return output

    AttentionInterface.register(_RECORDING_ATTENTION, recording_attention)
    AttentionMaskInterface.register(_RECORDING_ATTENTION, sdpa_mask)
    model.set_attn_implementation(_RECORDING_ATTENTION)
    try:
        with torch.no_grad():
            model(input_ids=torch.ones((1, 2), dtype=torch.int64, device=model.device), use_cache=False)
    finally:
        use_sdpa_attention(model)
    return bool(window_passed) and all(window_passed)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **settings: Any,  # transformers' attention interface does not fix what a model passes
) -> tuple[torch.Tensor, None]:
    """Attention of a batch of one row. See transformers' `sdpa_attention_forward` for shapes and settings."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths = settings.pop(SEQUENCE_LENGTHS, None)
    if lengths is None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **settings
        )
        return output
    if settings.get("position_bias") is not None:
        raise NotImplementedError("a position bias cannot be divided into sequences")
    window = settings.get(_SLIDING_WINDOW)
    outputs = []
    per_sequence = [torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)]
    for length, queries, keys, values in zip(lengths, *per_sequence, strict=True):
        mask = _window_mask(length, window, query.device) if window is not None and length > window else None
        outputs.append(sdpa_attention_forward(module, queries, keys, values, mask, **settings)[0])
    return torch.cat(outputs, dim=1), None


def _window_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """The mask of a sliding window: each token sees itself and the `window` - 1 tokens before it.

    Returns:
        bool, shape (1, 1, length, length).
    """
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions
    return ((distance >= 0) & (distance < window))[None, None]
