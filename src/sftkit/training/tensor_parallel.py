"""Tensor parallelism: several processes hold a part of each weight matrix, and compute the same rows together.

transformers divides the weights when a model is loaded, by the plan of its architecture. If there are more processes
than parts, several groups compute different rows, and FSDP2 shards each part over the groups. The processes of a group
have successive numbers: with groups of T processes, number p computes the rows of group p // T.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.training.distributed import parallel_size, uses_deepspeed, uses_fsdp

if TYPE_CHECKING:
    import torch
    from transformers import TrainingArguments


def tensor_parallel_size(arguments: TrainingArguments) -> int:
    """Processes that hold the parts of each weight matrix; 1 without tensor parallelism."""
    return parallel_size(arguments, "tp_size")


def data_processes(arguments: TrainingArguments) -> int:
    """Processes, or groups of them, that compute different rows of a step."""
    processes: int = max(1, arguments.world_size // tensor_parallel_size(arguments))
    return processes


def data_process_index(arguments: TrainingArguments) -> int:
    """Which of them this process belongs to."""
    return int(arguments.process_index) // tensor_parallel_size(arguments)


def sum_over_rows(accelerator: Any, arguments: TrainingArguments, values: torch.Tensor) -> torch.Tensor:
    """Add up values over the processes that compute different rows; every process must call it."""
    total: torch.Tensor = accelerator.reduce(values, "sum")
    size = tensor_parallel_size(arguments)
    if size == 1:
        return total
    return total / size if total.is_floating_point() else total // size


def loading_arguments(arguments: TrainingArguments) -> dict[str, Any]:
    """What `from_pretrained` is given to divide the weights; {} without tensor parallelism."""
    size = tensor_parallel_size(arguments)
    if size == 1:
        return {}
    from transformers.distributed.configuration_utils import DistributedConfig

    return {"distributed_config": DistributedConfig(tp_size=size, fsdp_size=data_processes(arguments))}


def parallelism_problems(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    """Yield a sentence for each setting of `parallelism_config`, or of the launcher, that cannot be used."""
    if parallel_size(arguments, "cp_size") > 1:
        yield (
            "parallelism_config: cp_size divides sequences over processes, and accelerate's attention for it cannot "
            "keep the rows of a batch apart; use tp_size or the dp_* sizes"
        )
    if parallel_size(arguments, "sp_size") > 1:
        yield (
            "parallelism_config: sp_size divides sequences over processes, which needs DeepSpeed's own batches and "
            "loss; use tp_size or the dp_* sizes"
        )
    size, processes = tensor_parallel_size(arguments), arguments.world_size
    if size == 1:
        return
    if processes % size:
        yield f"parallelism_config: tp_size={size} needs a multiple of {size} processes, and there are {processes}"
    if parallel_size(arguments, "dp_replicate_size") > 1:
        yield (
            f"parallelism_config: dp_replicate_size does not work with tp_size={size}; remove it, and the other "
            "processes share the weights"
        )
    unsupported = {
        "fsdp": uses_fsdp(arguments),
        "deepspeed": uses_deepspeed(arguments),
        "use_peft": config.use_peft,
        "adapter_name_or_path": bool(config.adapter_name_or_path),
        "load_in_4bit": config.load_in_4bit,
        "quantization_config": bool(config.quantization_config),
        "init_from_config": config.init_from_config,
        "loss_chunk_size": bool(config.loss_chunk_size),
    }
    for key in (key for key, is_set in unsupported.items() if is_set):
        yield f"parallelism_config: tp_size={size} does not work with {key}; remove one of them"
    if arguments.do_train and arguments.save_strategy != "no":
        yield (
            f"parallelism_config: with tp_size={size}, a checkpoint would have a part of the optimizer only; set "
            "save_strategy=no (the model is saved at the end)"
        )


def lacking_gpus(arguments: TrainingArguments) -> Iterator[str]:
    """Yield a sentence if tensor parallelism is asked for on the CPU, where accelerate does not set it up."""
    size, state = tensor_parallel_size(arguments), arguments.distributed_state
    if size > 1 and state is not None and state.distributed_type == "MULTI_CPU":
        yield f"parallelism_config: tp_size={size} needs a GPU for each process"
