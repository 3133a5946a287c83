"""What an estimate of memory says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryUse:
    """Memory of one device when the most is used, in bytes: in the backward pass, or in the step of the optimizer.

    Example:
        >>> MemoryUse(weights=8, gradients=0, states=16, activations=6, logits=2).total
        30
    """

    weights: int
    """With those that are gathered from other processes."""

    gradients: int
    """Of weights, as far as they exist at that moment, with the copies that DDP sends."""

    states: int
    """Of the optimizer."""

    activations: int
    """What the forward pass keeps for the backward pass, and temporary results."""

    logits: int
    """What of `activations` are logits, probabilities and their gradients."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.states + self.activations


@dataclass(frozen=True)
class Remedy:
    """A change of settings with which a run needs less memory."""

    settings: str
    """What to set, such as `gradient_checkpointing=true`."""

    total: int
    """What the run then needs on each device, in bytes."""


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that a run needs on each device, beside what the driver and the allocator take for themselves."""

    use: MemoryUse

    all_gradients: int
    """Gradients of all trained weights, in bytes; `use` has those that exist at its moment."""

    checkpointing: bool
    """Whether the run uses gradient checkpointing."""

    otherwise: MemoryUse | None
    """With gradient checkpointing if the run does not use it, and without it if it does; None if it is not possible."""

    rows: int
    """Rows of the largest micro-batch that was read, for which the memory is."""

    tokens: int
    """Tokens of that micro-batch, with padding."""

    attention: str
    """Such as `sdpa` or `flash_attention_2`."""

    sharding: str
    """Such as `FSDP`; empty if every process keeps everything."""

    rough: str
    """Why activations are only roughly known; empty if they were counted."""

    all_states: int | None
    """Optimizer states of all processes together, also those in main memory, in bytes; None if their size is not known,
    and `use` counts none.
    """

    capacity: int | None
    """Memory of the planned GPU in bytes; None without `gpu`."""

    remedies: tuple[Remedy, ...]
    """What would make the run fit, if it does not."""

    @property
    def fits(self) -> bool | None:
        """Whether the run fits into the planned GPU; None without one."""
        return None if self.capacity is None else fits(self.use.total, self.capacity)


_USABLE = 0.95


def fits(needed: int, capacity: int) -> bool:
    """Whether so many bytes of tensors fit: 5% of a GPU are left to CUDA's context, its libraries and fragmentation.

    Example:
        >>> fits(95, 100), fits(96, 100)
        (True, False)
    """
    return needed <= _USABLE * capacity
