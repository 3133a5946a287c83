"""SDPA attention over sequences laid end to end, one sequence at a time.

transformers tells SDPA where sequences end by a mask of tokens times tokens: for a batch of 32,000 tokens a billion
places, nearly all of them closed. Each sequence by itself needs no mask, and SDPA's causal kernels work on what is
left. Flash attention does the same in one kernel; this is for where it is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sftkit.training.data.boundaries import SEQUENCE_LENGTHS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SEQUENCE_ATTENTION = "sftkit_by_sequence"

_LISTENING = "sftkit_listening"
_WINDOW = "sliding_window"
_KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})


def supports_sequence_attention(model: PreTrainedModel) -> bool:
    """Whether a model computes with SDPA, and its attention is causal or a sliding window and nothing else."""
    settings: Any = model.config.get_text_config()
    kinds = frozenset(getattr(settings, "layer_types", None) or ())
    chunked = getattr(settings, "attention_chunk_size", None) is not None
    return model.config._attn_implementation == "sdpa" and kinds <= _KNOWN_LAYERS and not chunked


def use_sequence_attention(model: PreTrainedModel) -> None:
    """Have a model compute attention so, for batches that say where sequences end; others it takes as before."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(SEQUENCE_ATTENTION, _attention)
    AttentionMaskInterface.register(SEQUENCE_ATTENTION, sdpa_mask)
    model.set_attn_implementation(SEQUENCE_ATTENTION)


def passes_sliding_window(model: PreTrainedModel) -> bool:
    """Whether a model with a sliding window tells attention of it; some have it in the mask alone, which is not made.

    It is run on a few tokens to see; what it computes with is left at SDPA.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    settings: Any = model.config.get_text_config()
    if getattr(settings, "sliding_window", None) is None and "sliding_attention" not in (
        getattr(settings, "layer_types", None) or ()
    ):
        return True
    told: list[bool] = []

    def listening(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **given: Any
    ) -> tuple[torch.Tensor, None]:
        told.append(_WINDOW in given)
        done: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **given)
        return done

    AttentionInterface.register(_LISTENING, listening)
    AttentionMaskInterface.register(_LISTENING, sdpa_mask)
    model.set_attn_implementation(_LISTENING)
    try:
        with torch.no_grad():
            model(input_ids=torch.ones((1, 2), dtype=torch.int64, device=model.device), use_cache=False)
    finally:
        use_sdpa_attention(model)
    return bool(told) and all(told)


def use_sdpa_attention(model: PreTrainedModel) -> None:
    """Take it back: SDPA with a mask."""
    model.set_attn_implementation("sdpa")


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **settings: Any,  # transformers' attention interface leaves open what a model passes
) -> tuple[torch.Tensor, None]:
    """Attention of a batch of one row; see `sdpa_attention_forward` of transformers for shapes and settings."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths = settings.pop(SEQUENCE_LENGTHS, None)
    if lengths is None:
        done: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return done
    if settings.get("position_bias") is not None:
        raise NotImplementedError("a position bias cannot be cut into sequences")
    window = settings.get(_WINDOW)
    parts = []
    pieces = [torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)]
    for length, queries, keys, values in zip(lengths, *pieces, strict=True):
        mask = _window(length, window, query.device) if window is not None and length > window else None
        parts.append(sdpa_attention_forward(module, queries, keys, values, mask, **settings)[0])
    return torch.cat(parts, dim=1), None


def _window(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Who sees whom in a sliding window: itself and what is less than `window` tokens before it."""
    places = torch.arange(length, device=device)
    distance = places[:, None] - places
    return ((distance >= 0) & (distance < window))[None, None]
