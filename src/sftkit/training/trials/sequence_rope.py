"""Rotary position embeddings of each sequence by its own length.

Two kinds of rotary embeddings depend on how long a sequence is: "longrope" (Phi-3.5, Phi-4-mini, MiniCPM) has other
factors for sequences longer than `original_max_position_embeddings`, and "dynamic" NTK scaling has other frequencies
for every length beyond `max_position_embeddings`. transformers takes the longest sequence of a batch as the length of
all of them (and "dynamic" even remembers it for later batches), so that the loss of a short sequence depends on its
neighbors. In inference a prompt is alone: what a model must learn is each sequence by its own length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

_LONG_ROPE = "longrope"
_DYNAMIC = "dynamic"

_Rope = tuple[torch.Tensor, ...] | torch.Tensor  # cosines and sines, or complex numbers


def depends_on_length(model: torch.nn.Module) -> bool:
    """Whether a model has rotary embeddings that depend on the length of a sequence."""
    return next(_modules(model), None) is not None


def use_sequence_rope(model: torch.nn.Module) -> None:
    """Let a model compute such rotary embeddings by the length of each sequence.

    A sequence ends where `position_ids` restart at 0, and with the row. Padded batches must therefore come with
    positions, which are 0 at padding. A model without such embeddings stays as it is.
    """
    for module in _modules(model):
        if "forward" not in vars(module):  # not yet
            module.forward = _by_sequence(module)


def _modules(model: torch.nn.Module) -> Iterator[Any]:
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        kinds = kinds.values() if isinstance(kinds, dict) else [kinds]
        if any(isinstance(kind, str) and (kind == _LONG_ROPE or _DYNAMIC in kind) for kind in kinds):
            yield module


def _by_sequence(module: Any) -> Callable[..., _Rope]:
    plain: Callable[..., _Rope] = module.forward

    def forward(x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None) -> _Rope:
        named = {} if layer_type is None else {"layer_type": layer_type}
        kind = module.rope_type if layer_type is None else module.rope_type[layer_type]
        if position_ids.dim() != 2 or not isinstance(kind, str) or not (kind == _LONG_ROPE or _DYNAMIC in kind):
            return plain(x, position_ids, **named)
        lengths = sequence_lengths(position_ids)
        if kind == _LONG_ROPE:
            limit = _original_length(module, layer_type)
            classes = torch.where(lengths > limit, limit + 1, limit)
        else:
            classes = lengths.clamp(min=module.original_max_seq_len)
        found = torch.unique(classes).tolist()
        outputs: tuple[torch.Tensor, ...] = ()
        for length in found:
            _forget_length(module, kind, layer_type)
            chosen = classes == length
            # The last position is that of the longest sequence of this class: its length decides for all of them.
            made = plain(x[:1], position_ids[chosen][None], **named)
            parts = made if isinstance(made, tuple) else (made,)
            if not outputs:
                outputs = tuple(part.new_empty(*position_ids.shape, part.shape[-1]) for part in parts)
            for output, part in zip(outputs, parts, strict=True):
                output[chosen] = part[0]
        return outputs if isinstance(made, tuple) else outputs[0]

    return forward


def sequence_lengths(position_ids: torch.Tensor) -> torch.Tensor:
    """For every token, how many positions its sequence has up to its last token in the batch.

    Args:
        position_ids: int64, shape (rows, tokens). A sequence begins with each row, and where they are 0.

    Returns:
        int64, shape (rows, tokens).

    Example:
        >>> sequence_lengths(torch.tensor([[0, 1, 2, 0, 1], [7, 0, 0, 0, 0]])).tolist()
        [[3, 3, 3, 2, 2], [8, 1, 1, 1, 1]]
    """
    starts = position_ids == 0
    starts[:, 0] = True
    numbers = starts.flatten().cumsum(0) - 1
    values = position_ids.flatten()
    last = values.new_zeros(len(values)).scatter_reduce(0, numbers, values, "amax")
    return (last[numbers] + 1).view(position_ids.shape)


def _original_length(module: Any, layer_type: str | None) -> int:
    parameters = module.config.rope_parameters
    return int((parameters if layer_type is None else parameters[layer_type])["original_max_position_embeddings"])


def _forget_length(module: Any, kind: str, layer_type: str | None) -> None:
    """Reset "dynamic" embeddings, which keep the frequencies of the longest sequence seen so far."""
    if _DYNAMIC not in kind:
        return
    prefix = "" if layer_type is None else f"{layer_type}_"
    original = getattr(module, f"{prefix}original_inv_freq")
    setattr(module, f"{prefix}inv_freq", original.to(getattr(module, f"{prefix}inv_freq").device))
    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
