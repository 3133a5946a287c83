"""How weights, gradients and optimizer states are divided over the processes of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftkit.training.distributed import uses_deepspeed, uses_fsdp

if TYPE_CHECKING:
    from transformers import TrainingArguments

_FSDP = "FSDP_"
_ZERO = "ACCELERATE_DEEPSPEED_"
_DEFAULT_STAGE = 2  # of accelerate
_TRUE = ("true", "1", "yes", "on")


@dataclass(frozen=True)
class Sharding:
    """What a process keeps on its device of weights, gradients and optimizer states, as shares from 0 to 1.

    Example:
        >>> fully_sharded(8)
        Sharding(name='FSDP', weights=0.125, gradients=0.125, states=0.125, gathers=True, copies_gradients=False)
    """

    name: str = ""
    """`FSDP`, `ZeRO-1`, `ZeRO-2` or `ZeRO-3`; empty if every process keeps everything."""

    weights: float = 1.0
    gradients: float = 1.0
    states: float = 1.0

    gathers: bool = False
    """Whether weights are gathered block by block to be used."""

    copies_gradients: bool = False
    """Whether gradients are copied into buffers to be added up over the processes, as DDP does."""


def fully_sharded(processes: int) -> Sharding:
    """What FSDP with `reshard_after_forward` keeps on each of some processes."""
    share = 1 / processes
    return Sharding("FSDP", share, share, share, gathers=True)


def sharding_of(arguments: TrainingArguments) -> Sharding:
    """How the processes of a run divide its states, as training arguments or the launcher say."""
    processes = arguments.world_size
    if uses_deepspeed(arguments):
        return _zero(_deepspeed_settings(arguments), processes)
    if uses_fsdp(arguments):
        return _fsdp(getattr(arguments, "fsdp_config", None) or {}, processes)
    return Sharding(copies_gradients=processes > 1)


def gathered_bytes(model: torch.nn.Module) -> int:
    """Weights that a process holds in full while it computes with sharded ones.

    These are the weights outside of repeated blocks (embeddings, output head), which stay gathered from the forward to
    the backward pass, the block in use with its gradients, and the next one, which is fetched meanwhile.

    Args:
        model: in the data type that it computes in; it has the names of its repeated blocks in `_no_split_modules`.
    """

    def bytes_of(parameters: Iterator[torch.nn.Parameter]) -> dict[int, int]:
        return {id(values): values.numel() * values.element_size() for values in parameters}

    names = frozenset(name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ())
    blocks = [bytes_of(module.parameters()) for module in model.modules() if type(module).__name__ in names]
    inside = frozenset[int]().union(*blocks)
    outside = sum(count for key, count in bytes_of(model.parameters()).items() if key not in inside)
    largest = max((sum(block.values()) for block in blocks), default=0)
    return outside + 3 * largest


def _fsdp(settings: Mapping[str, Any], processes: int) -> Sharding:
    """FSDP by `fsdp_config`, or by the launcher's variables; without either, everything is sharded."""
    reshard = _setting(settings, "reshard_after_forward", "RESHARD_AFTER_FORWARD")
    if reshard is None:
        reshard = os.environ.get(f"{_FSDP}SHARDING_STRATEGY", "full_shard")
    strategy = str(reshard).lower()
    if strategy in ("no_shard", "3"):
        return Sharding(copies_gradients=processes > 1)
    inside = int(os.environ.get("LOCAL_WORLD_SIZE") or processes)  # hybrid strategies shard within a machine
    full = fully_sharded(min(processes, inside) if strategy.startswith(("hybrid", "_hybrid")) else processes)
    if _is_true(_setting(settings, "cpu_offload", "OFFLOAD_PARAMS")):
        return replace(full, weights=0.0, gradients=0.0, states=0.0)
    if strategy in ("false", "shard_grad_op", "2", "hybrid_shard_zero2", "_hybrid_shard_zero2"):
        return replace(full, weights=1.0, gathers=False)
    return full


def _zero(settings: Mapping[str, Any], processes: int) -> Sharding:
    zero: Mapping[str, Any] = settings.get("zero_optimization") or {}
    stage = int(zero.get("stage", 0))
    if not stage:
        return Sharding(copies_gradients=processes > 1)
    share = 1 / processes
    states_leave = _leaves(zero.get("offload_optimizer"))
    return Sharding(
        name=f"ZeRO-{stage}",
        weights=(0.0 if _leaves(zero.get("offload_param")) else share) if stage > 2 else 1.0,
        gradients=(0.0 if states_leave else share) if stage > 1 else 1.0,
        states=0.0 if states_leave else share,
        gathers=stage > 2,
    )


def _deepspeed_settings(arguments: TrainingArguments) -> Mapping[str, Any]:
    given: Any = getattr(arguments, "deepspeed", None) or os.environ.get(f"{_ZERO}CONFIG_FILE")
    if isinstance(given, Mapping):
        return given
    if given and given != "none":
        read: Mapping[str, Any] = json.loads(Path(given).read_text(encoding="utf-8"))
        return read
    devices = {key: os.environ.get(f"{_ZERO}{key.upper()}_DEVICE", "none")
               for key in ("offload_optimizer", "offload_param")}  # fmt: skip
    stage = int(os.environ.get(f"{_ZERO}ZERO_STAGE") or _DEFAULT_STAGE)
    return {"zero_optimization": {"stage": stage, **{key: {"device": device} for key, device in devices.items()}}}


def _leaves(offload: Any) -> bool:
    return isinstance(offload, Mapping) and str(offload.get("device", "none")) != "none"


def _setting(settings: Mapping[str, Any], key: str, variable: str) -> Any:
    return settings[key] if key in settings else os.environ.get(f"{_FSDP}{variable}")


def _is_true(value: Any) -> bool:
    return str(value).lower() in _TRUE
