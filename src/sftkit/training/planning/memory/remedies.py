"""Find what would make a run fit into the memory of a GPU; every proposal is estimated like the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.planning.memory.memory_use import Remedy, fits
from sftkit.training.planning.memory.planned_case import PlannedCase
from sftkit.training.planning.memory.sharding import fully_sharded

ROWS, TOKENS = "per_device_train_batch_size", "tokens_per_device_batch"
_CHECKPOINTING = "gradient_checkpointing=true"
_MOST_PROCESSES = 1024


@dataclass(frozen=True)
class Situation:
    """A run that needs too much memory."""

    case: PlannedCase
    sequences: Sequence[TokenSequences]
    checkpointing: bool

    can_checkpoint: bool
    """Whether its model supports gradient checkpointing, and the run does not use it yet."""

    capacity: int
    """Memory of the GPU in bytes."""

    processes: int

    batch_key: str
    """The key that decides the size of a micro-batch: `per_device_train_batch_size` or `tokens_per_device_batch`."""

    batch_size: int
    """Its value for one device, in rows or tokens."""

    accumulation_steps: int

    sharded: Callable[[], PlannedCase] | None
    """The same run with FSDP; None if it shards already."""

    adapted: Callable[[], PlannedCase] | None
    """The same run with LoRA; None if it trains adapters already."""


def find_remedies(situation: Situation) -> tuple[Remedy, ...]:
    """What makes the run fit; the smallest that was found if nothing does.

    Each change is tried alone first, and with gradient checkpointing if that is not enough.
    """
    found = list(_all(situation))
    enough = [remedy for remedy in found if fits(remedy.total, situation.capacity)]
    return tuple(enough or sorted(found, key=lambda remedy: remedy.total)[:1])


def _all(situation: Situation) -> Iterator[Remedy]:
    case, sequences = situation.case, situation.sequences
    if situation.can_checkpoint:
        yield Remedy(_CHECKPOINTING, case.use(sequences, checkpointing=True).total)
    yield from _alone_or_with_checkpointing(situation, _smaller_batches)
    if situation.sharded is not None:
        yield from _alone_or_with_checkpointing(situation, partial(_more_processes, situation.sharded()))
    if situation.adapted is not None:
        yield from _alone_or_with_checkpointing(situation, partial(_adapters, situation.adapted()))


def _alone_or_with_checkpointing(
    situation: Situation, tried: Callable[[Situation, bool], Iterator[Remedy]]
) -> Iterator[Remedy]:
    """The first remedy that fits, or the last one; with gradient checkpointing if it has to be."""
    last = None
    for checkpointing in (situation.checkpointing, True) if situation.can_checkpoint else (situation.checkpointing,):
        added = f", {_CHECKPOINTING}" if checkpointing and not situation.checkpointing else ""
        for remedy in tried(situation, checkpointing):
            last = Remedy(remedy.settings + added, remedy.total)
            if fits(remedy.total, situation.capacity):
                yield last
                return
    if last is not None:
        yield last


def _smaller_batches(situation: Situation, checkpointing: bool) -> Iterator[Remedy]:
    """Batches of half, a quarter, ... of the rows or tokens, and as many more of them in a step."""
    size, steps = situation.batch_size // 2, situation.accumulation_steps * 2
    part = situation.sequences
    while size and len(part) > 1:
        part = _longest(situation, size)
        if len(part) < len(situation.sequences):
            total = situation.case.use(part, checkpointing=checkpointing, accumulates=True).total
            yield Remedy(f"{situation.batch_key}={size}, gradient_accumulation_steps={steps}", total)
        size, steps = size // 2, steps * 2


def _longest(situation: Situation, size: int) -> Sequence[TokenSequences]:
    """The longest rows of a micro-batch: so many, or as many as have so many tokens, at least one."""
    lengths = {id(rows): int(rows.input_ids.lengths.sum()) for rows in situation.sequences}
    longest_first = sorted(situation.sequences, key=lambda rows: lengths[id(rows)], reverse=True)
    if situation.batch_key == ROWS:
        return longest_first[:size]
    ends = list(accumulate(lengths[id(rows)] for rows in longest_first))
    return longest_first[: max(1, sum(end <= size for end in ends))]


def _more_processes(case: PlannedCase, situation: Situation, checkpointing: bool) -> Iterator[Remedy]:
    """FSDP over more and more processes, of powers of 2."""
    processes = 2
    while processes <= _MOST_PROCESSES:
        if processes >= situation.processes:
            use = case.use(situation.sequences, checkpointing=checkpointing, sharding=fully_sharded(processes))
            yield Remedy(f"fsdp=true on {processes} devices", use.total)
        processes *= 2


def _adapters(case: PlannedCase, situation: Situation, checkpointing: bool) -> Iterator[Remedy]:
    """LoRA with its usual settings."""
    yield Remedy("use_peft=true", case.use(situation.sequences, checkpointing=checkpointing).total)
