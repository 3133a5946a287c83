"""Give the tensors of an outlined model a device, but no values, so that it can be run without memory for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode


def without_values(
    model: torch.nn.Module,
    mode: FakeTensorMode,
    stored: torch.dtype | None = None,
    trained: torch.dtype | None = None,
) -> None:
    """Replace the tensors of a model on torch's device `meta` by tensors of `mode`, which are on the CPU and have none.

    Operations on them compute shapes, data types and autograd's graph as for real ones, with mixed precision, and
    allocate nothing. (On `meta` there is no mixed precision.)

    Args:
        model: changed in place. Tied parameters stay tied.
        mode: must be entered to run the model.
        stored: data type of floating-point parameters; None for their own.
        trained: data type of those that are trained; None for the same as the others.
    """
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def valueless(values: torch.nn.Parameter) -> torch.Tensor:
        if id(values) not in made:  # the original is kept, so that no other tensor gets its id
            chosen = (trained if values.requires_grad else None) or stored
            dtype = chosen if chosen is not None and values.is_floating_point() else values.dtype
            new = torch.nn.Parameter(torch.empty(values.shape, dtype=dtype), requires_grad=values.requires_grad)
            made[id(values)] = values, new
        return made[id(values)][1]

    with mode:
        for module in model.modules():
            for name, values in module._parameters.items():
                if values is not None:
                    module._parameters[name] = valueless(values)  # type: ignore[assignment]  # it is a Parameter
            for tensors in (module._buffers, vars(module)):
                for name, tensor in [*tensors.items()]:
                    if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                        tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype)


def tensors_of(model: torch.nn.Module) -> Iterator[Any]:
    """The parameters and buffers of a model."""
    yield from model.parameters()
    yield from model.buffers()
