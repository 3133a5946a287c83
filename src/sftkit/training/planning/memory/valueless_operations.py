"""Operations on tensors without values that take the memory which those of a GPU would take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional


@contextmanager
def fused_attention() -> Iterator[None]:
    """Within the block, SDPA takes the memory of a fused kernel (flash or memory-efficient attention).

    Without values, torch would choose the kernel of the device that a plan is made on, and that can be the one that
    stores all scores. Fused kernels keep queries, keys, values, the output and one number for each query and head; a
    mask of booleans is converted to numbers in every layer.

    The function is replaced, because a `TorchFunctionMode` does not see what checkpointing computes again in the
    backward pass.
    """
    before = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = before


@contextmanager
def grouped_experts() -> Iterator[None]:
    """Within the block, transformers multiplies grouped matrices by its own operation.

    That of torch allocates the same, but without values it takes bfloat16 only.
    """
    from transformers.integrations import moe

    library: Any = moe
    name = "_can_use_grouped_mm"
    before = getattr(library, name, None)
    if before is None:  # in older and newer versions of transformers
        yield
        return
    setattr(library, name, lambda *_arguments: False)
    try:
        yield
    finally:
        setattr(library, name, before)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *_arguments: Any,
    **_settings: Any,
) -> torch.Tensor:
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    mask = None if attn_mask is None else attn_mask.to(dtype)
    output: torch.Tensor = _Kernel.apply(query.to(dtype), key.to(dtype), value.to(dtype), mask)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return output


class _Kernel(torch.autograd.Function):
    """Allocates what a fused kernel does. Shapes: (rows, heads, tokens, head size)."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        rows, heads, tokens = query.shape[:3]
        output = query.new_empty((rows, tokens, heads, value.shape[-1])).transpose(1, 2)
        sums = query.new_empty((rows, heads, tokens), dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums, mask)
        return output

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> Any:
        query, key, value = ctx.saved_tensors[:3]
        return *(each.new_empty(each.transpose(1, 2).shape).transpose(1, 2) for each in (query, key, value)), None
