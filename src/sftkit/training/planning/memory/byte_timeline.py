"""Record which tensors exist while torch computes, in bytes, whatever the device and its allocator."""

from __future__ import annotations

import enum
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS_VALUE = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)


class Kind(enum.Enum):
    """What a tensor is in a training step."""

    GRADIENT = "gradient of a parameter"
    LOGITS = "logits, probabilities, and their gradients"
    OTHER = "activations, gradients of activations, and temporary results"


@dataclass(frozen=True)
class LiveBytes:
    """What exists at one moment, in bytes."""

    gradients: float = 0.0
    logits: float = 0.0
    others: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.gradients + self.logits + self.others


@dataclass(frozen=True)
class ByteTimeline:
    """How the bytes of a step change."""

    changes: Sequence[tuple[Kind, int]]
    """Bytes that were allocated (above 0) or freed (below 0), in order."""

    def peak(self, gradient_share: float = 1.0) -> LiveBytes:
        """What exists when there is most.

        Args:
            gradient_share: the share of a gradient that a process keeps, 0 to 1; less than 1 if gradients are sharded.

        Example:
            >>> steps = [(Kind.OTHER, 8), (Kind.GRADIENT, 4), (Kind.OTHER, -8), (Kind.GRADIENT, 6)]
            >>> ByteTimeline(steps).peak()
            LiveBytes(gradients=4.0, logits=0.0, others=8.0)
        """
        live = dict.fromkeys(Kind, 0.0)
        most, best = -1.0, LiveBytes()
        for kind, change in self.changes:
            live[kind] += change * (gradient_share if kind is Kind.GRADIENT else 1.0)
            total = sum(live.values())
            if total > most:
                most, best = total, LiveBytes(live[Kind.GRADIENT], live[Kind.LOGITS], live[Kind.OTHER])
        return best

    @property
    def left(self) -> int:
        """Bytes that still exist at the end."""
        return sum(change for _, change in self.changes)


class ByteRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Records the storages that operations make, within a `with` block, and when they are freed.

    Tensors that exist before are not recorded. A program that asks a tensor without values for one gets 1 (True), since
    memory depends on shapes.
    """

    def __init__(self, existing: Iterable[torch.Tensor], vocabulary: int | None = None) -> None:
        """Prepare to record.

        Args:
            existing: tensors that are not recorded, such as the parameters of the model.
            vocabulary: last dimension of the tensors that are counted as logits.
        """
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._vocabulary = vocabulary
        self._changes: list[tuple[int, int]] = []  # number of the storage, bytes
        self._logits: set[int] = set()
        self._numbers: dict[int, int] = {_address(tensor): -1 for tensor in existing}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record what it makes."""
        if func in _READS_VALUE and isinstance(args[0], torch.Tensor):
            return 1.0 if args[0].is_floating_point() else True if args[0].dtype is torch.bool else 1
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self.record(tensor)
        return output

    def record(self, tensor: torch.Tensor) -> None:
        """Record a tensor, unless its storage is known."""
        storage, address = tensor.untyped_storage(), _address(tensor)
        if address in self._numbers:
            return
        number, size = len(self._changes), storage.nbytes()
        self._numbers[address] = number
        self._changes.append((number, size))
        if self._vocabulary is not None and tensor.dim() > 1 and tensor.shape[-1] == self._vocabulary:
            self._logits.add(number)
        weakref.finalize(storage, self._free, address, number, size)

    def timeline(self, gradients: Iterable[torch.Tensor] = ()) -> ByteTimeline:
        """What was recorded.

        Args:
            gradients: tensors that are gradients of parameters.
        """
        of_parameters = {self._numbers.get(_address(tensor)) for tensor in gradients}

        def kind(number: int) -> Kind:
            if number in of_parameters:
                return Kind.GRADIENT
            return Kind.LOGITS if number in self._logits else Kind.OTHER

        return ByteTimeline([(kind(number), change) for number, change in self._changes])

    def _free(self, address: int, number: int, size: int) -> None:
        if self._numbers.get(address) == number:
            del self._numbers[address]
        self._changes.append((number, -size))


def _address(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
