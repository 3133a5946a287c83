"""Sum of cross entropies in chunks of positions, with the gradients of each chunk computed at once.

The logits of all positions take positions x vocabulary numbers, and as many again for their probabilities and
gradients. Here only those of one chunk exist: its loss is computed and differentiated before the next chunk begins, as
in Liger's fused linear cross entropy (https://arxiv.org/abs/2410.10989). The gradients are kept in the size of the
hidden states and of the head, and are scaled in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch.nn import functional

from sftkit.training.autograd_graph import graph_leaves
from sftkit.training.models.cross_entropy import summed_cross_entropy, token_cross_entropy

Head = Callable[[torch.Tensor], torch.Tensor]
"""Hidden states, shape (rows, positions, width), to logits, shape (rows, positions, vocabulary)."""


def chunked_cross_entropy(
    head: Head,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    columns: int,
    smoothing: float = 0.0,
    linear: torch.nn.Module | None = None,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Sum of the cross entropies of all trained tokens, in float32; with weights, also that of each token.

    Args:
        head: computes the logits of each position from its hidden state alone.
        hidden: hidden states, shape (rows, positions, width).
        labels: the label that each position should predict, -100 for no loss, shape (rows, positions).
        columns: positions of a chunk, of all rows.
        smoothing: share of the target that is spread over the vocabulary (label smoothing).
        linear: the module in `head` that multiplies by the largest matrix. If it is an `nn.Linear`, the gradient of its
            weight is summed in place, without a copy for each chunk.
        weights: of each label in the sum, float32, shape (rows, positions); None if all are 1.

    Returns:
        The sum, and with weights also the cross entropies themselves, without weights and gradients, of the shape of
        the labels.
    """
    of_tokens: list[torch.Tensor] = []
    loss_of_chunk = partial(_chunk_loss, head, smoothing, of_tokens)
    if not torch.is_grad_enabled():
        total = torch.stack([loss_of_chunk(*chunk) for chunk in _chunks(columns, hidden, labels, weights)]).sum()
    else:
        total = _differentiated(loss_of_chunk, _chunks(columns, hidden, labels, weights), hidden, linear)
    return total, torch.cat(of_tokens, dim=1) if of_tokens else None


def _differentiated(
    loss_of_chunk: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor],
    chunks: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]],
    hidden: torch.Tensor,
    linear: torch.nn.Module | None,
) -> torch.Tensor:
    """The sum of the losses of chunks, each differentiated at once."""
    total: torch.Tensor | None = None
    hidden_gradients: list[torch.Tensor] = []
    sums = _GradientSums()
    # What a chunk saves is used at once, and need not leave the device.
    with torch.autograd.graph.saved_tensors_hooks(_same, _same), _weight_gradient_in_place(linear, hidden, sums):
        for part, wanted, weights in chunks:
            states = part.detach().requires_grad_()  # else autograd would not come to the weight of a plain head
            loss = loss_of_chunk(states, wanted, weights)
            gradients = _gradients(loss)
            own = gradients.pop(states, None)
            if hidden.requires_grad:
                hidden_gradients.append(torch.zeros_like(states) if own is None else own)
            for leaf, gradient in gradients.items():
                sums.add(leaf, gradient)
            total = loss.detach() if total is None else total + loss.detach()
    assert total is not None, "a batch has at least one position"
    inputs = [*([hidden] if hidden.requires_grad else []), *sums.of]
    own_gradient = [torch.cat(hidden_gradients, dim=1)] if hidden.requires_grad else []
    result: torch.Tensor = _WithGradients.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total, [*own_gradient, *sums.of.values()], *inputs
    )
    return result


class _GradientSums:
    """Sums of gradients over chunks, in float32 unless they are in float64, by the tensor they are of."""

    def __init__(self) -> None:
        self.of: dict[torch.Tensor, torch.Tensor] = {}

    def add(self, leaf: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add the gradient of one chunk."""
        if leaf in self.of:
            self.of[leaf] += gradient
        else:
            self.of[leaf] = gradient.to(_wide(gradient.dtype))

    def add_product(self, weight: torch.Tensor, outputs: torch.Tensor, inputs: torch.Tensor) -> None:
        """Add the gradient of a weight of a linear map, given the gradients of its outputs and its inputs."""
        if weight in self.of and self.of[weight].dtype == outputs.dtype == inputs.dtype:
            self.of[weight].addmm_(outputs.T, inputs)
        else:
            self.add(weight, outputs.T @ inputs)


class _WithGradients(torch.autograd.Function):
    """A value whose gradients are known: in the backward pass they are only scaled."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, gradients: list[torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        ctx.gradients = gradients
        ctx.dtypes = [each.dtype for each in inputs]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> Any:
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [
            gradient.mul_(given[0].to(gradient.device)).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        ]
        return (None, None, *scaled)


class _LinearWithoutWeightGradient(torch.autograd.Function):
    """A linear map that hands the gradients of its outputs, and its inputs, to a function, and knows no parameter."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, add: Callable[[torch.Tensor, torch.Tensor], None]
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.add = add
        return functional.linear(inputs, weight)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        ctx.add(given[0].flatten(0, -2), inputs.flatten(0, -2))
        return given[0] @ weight, None, None


@contextmanager
def _weight_gradient_in_place(
    linear: torch.nn.Module | None, hidden: torch.Tensor, sums: _GradientSums
) -> Iterator[None]:
    """Sum the gradient of the weight of a plain linear module in place, within the block."""
    if type(linear) is not torch.nn.Linear or not _is_plain_leaf(linear.weight):
        yield
        return
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else linear.weight.dtype
    weight, bias = linear.weight.detach().to(dtype), linear.bias

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _LinearWithoutWeightGradient.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
            inputs.to(dtype), weight, partial(sums.add_product, linear.weight)
        )
        return product if bias is None else product + bias.to(dtype)

    with replaced_forward(linear, forward):
        yield


@contextmanager
def replaced_forward(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace what a module computes within the block; its hooks still run."""
    before = module.__dict__.get("forward")  # of a library that replaced it too
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def _is_plain_leaf(weight: torch.Tensor) -> bool:
    """Whether the gradient of a weight goes to the weight itself, and not to a tensor behind a view, as in FSDP1."""
    return weight.is_leaf and weight.requires_grad and type(weight.data) is torch.Tensor


def _gradients(loss: torch.Tensor) -> dict[torch.Tensor, torch.Tensor]:
    """The gradients of everything that a result was computed from."""
    leaves = graph_leaves(loss)
    if not leaves:
        return {}
    with torch.autocast(loss.device.type, enabled=False):  # as in a backward pass, which runs outside of it
        return dict(zip(leaves, torch.autograd.grad(loss, leaves), strict=True))


def _chunks(
    columns: int, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    states, wanted = torch.split(hidden, columns, 1), torch.split(labels, columns, 1)
    return zip(states, wanted, repeat(None) if weights is None else torch.split(weights, columns, 1), strict=False)


def _chunk_loss(
    head: Head,
    smoothing: float,
    of_tokens: list[torch.Tensor],
    states: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """The sum of the losses of a chunk; with weights, the loss of each token is added to `of_tokens`."""
    logits = head(states)
    if weights is None:
        return summed_cross_entropy(logits, labels, torch.ones((), device=logits.device), smoothing)
    losses = token_cross_entropy(logits, labels, smoothing)
    of_tokens.append(losses.detach())
    return (losses * weights.to(losses.device)).sum()


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32
