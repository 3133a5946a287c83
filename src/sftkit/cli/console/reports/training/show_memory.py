"""The lines about memory in the plan of a training run."""

from __future__ import annotations

from collections.abc import Iterator

from sftkit.training.planning.memory.memory_use import MemoryPlan, fits

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20))


def memory_lines(memory: MemoryPlan, unit: str, gpu: str | None) -> Iterator[tuple[str, str]]:
    """Lines of a table: a name, empty if it is that of the line before, and a text.

    Args:
        memory: of the plan.
        unit: what a row is, in the plural: `rows` or `packs`.
        gpu: the planned GPU; None without one.
    """
    use = memory.use
    shards = f", divided by {memory.sharding}" if memory.sharding else ""
    yield "memory", f"{size_text(use.total)} on each device{shards}: {_parts(memory)}"
    rows = f"{memory.rows:,} {unit if memory.rows > 1 else unit[:-1]}"
    batch = f"a micro-batch of {rows} with {memory.tokens:,} tokens, {memory.attention} attention"
    yield "", f"for {batch}, {_with_or_without(memory.checkpointing)}"
    if memory.otherwise is not None:
        other = memory.otherwise
        activations = f"activations {size_text(other.activations)}"
        yield "", f"{_with_or_without(not memory.checkpointing)}: {size_text(other.total)} ({activations})"
    if memory.rough:
        yield "", f"activations by formula, as the model cannot be run without weights ({memory.rough})"
    if memory.all_states is None:
        yield "", "without the state of the optimizer, whose size is not known"
    if memory.capacity is not None and gpu is not None:
        yield from _fit(memory, memory.capacity, gpu)


def size_text(size: float) -> str:
    """Bytes in the unit that suits them.

    Example:
        >>> size_text(3 * 2**30)
        '3.0 GiB'
    """
    for unit, one in _UNITS:
        if size >= one:
            return f"{size / one:,.1f} {unit}"
    return f"{size / 1024:,.1f} KiB" if size else "0"


def _parts(memory: MemoryPlan) -> str:
    use = memory.use
    gradients = size_text(use.gradients)
    if use.gradients < memory.all_gradients:
        gradients += f" (later {size_text(memory.all_gradients)})"
    logits = f" (logits {size_text(use.logits)})" if use.logits else ""
    return (
        f"weights {size_text(use.weights)}, gradients {gradients}, optimizer {size_text(use.states)},"
        f" activations {size_text(use.activations)}{logits}"
    )


def _with_or_without(checkpointing: bool) -> str:
    return f"with{'' if checkpointing else 'out'} gradient checkpointing"


def _fit(memory: MemoryPlan, capacity: int, gpu: str) -> Iterator[tuple[str, str]]:
    if memory.fits:
        yield "", f"fits into the {size_text(capacity)} of one {gpu}"
        return
    needed = f"needs {size_text(memory.use.total)} of the {size_text(capacity)} of one {gpu}"
    helps = any(fits(remedy.total, capacity) for remedy in memory.remedies)
    yield "", f"does not fit: {needed}{'' if helps else ', and nothing that was tried makes it fit'}"
    for remedy in memory.remedies:
        yield "", f"{remedy.settings} needs {size_text(remedy.total)}"
