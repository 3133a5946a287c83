"""Settings that cannot work together, or not here, found before any data is read."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError
from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)

_COMPILERS = ("c++", "g++", "clang++")


def check_combinations(config: TrainConfig, arguments: TrainingArguments) -> None:
    """Refuse what would only fail once the model computes.

    Raises:
        ConfigError: with everything found.
    """
    problems = [
        *_stream_problems(config, arguments),
        *_parallelism_problems(arguments),
        *_adapter_problems(config),
        *_precision_problems(config, arguments),
        *_kernel_problems(arguments),
    ]
    if problems:
        raise ConfigError(problems)


def use_one_gpu(arguments: TrainingArguments) -> None:
    """Without a launcher, compute on one GPU although more are visible.

    The Trainer would spread each batch over them with DataParallel, which cuts the flat row of a padding-free batch
    anywhere, and is slower than one process a GPU in any case.
    """
    if arguments.n_gpu > 1:
        warn_on_main_process(
            _log,
            f"{arguments.n_gpu} GPUs are visible and one is used; `torchrun --nproc_per_node {arguments.n_gpu} -m"
            " sftkit train ...` uses all of them",
        )
        arguments._n_gpu = 1  # the Trainer itself sets it so, for models that are spread over the GPUs


def _stream_problems(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    if not config.dataprocessor.streaming:
        return
    needs = "needs the lengths of all rows beforehand; leave out streaming"
    if config.tokens_per_device_batch is not None:
        yield f"tokens_per_device_batch {needs}"
    if arguments.train_sampling_strategy == "group_by_length":
        yield f"train_sampling_strategy: group_by_length {needs}"


def _parallelism_problems(arguments: TrainingArguments) -> Iterator[str]:
    sizes = getattr(arguments, "parallelism_config", None)
    for name in ("tp_size", "cp_size", "sp_size"):
        if getattr(sizes, name, 1) > 1:
            yield f"parallelism_config: {name} spreads one row over processes, which sftkit does not; use dp_* sizes"


def _adapter_problems(config: TrainConfig) -> Iterator[str]:
    adapters = config.use_peft or config.load_in_4bit
    if config.merge_lora and not adapters:
        yield "merge_lora: there are no adapters to merge without use_peft"
    if config.use_peft and importlib.util.find_spec("peft") is None:
        yield "use_peft: peft is not installed; pip install 'sftkit[peft]'"
    if config.load_in_4bit and not all(map(importlib.util.find_spec, ("peft", "bitsandbytes"))):
        yield "load_in_4bit: peft and bitsandbytes are needed; pip install 'sftkit[qlora]'"
    if adapters and config.init_from_config:
        yield (
            "use_peft needs a model that was trained: adapters to the random weights of init_from_config could be"
            " used with no other model"
        )
    if not 0 <= config.lora_dropout < 1:
        yield f"lora_dropout must be 0 or more and less than 1, not {config.lora_dropout:g}"
    if adapters and not config.lora_target_modules:
        yield "lora_target_modules is empty; all-linear stands for every linear module but the head"


def _precision_problems(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    if config.torch_dtype == "float16" and arguments.fp16 and not (config.use_peft or config.load_in_4bit):
        yield (
            "fp16=true scales gradients, which must not be float16 themselves: leave torch_dtype=float16 out, or use"
            " bfloat16"
        )
    flash = (config.attn_implementation or "").startswith("flash_attention")
    if flash and _on_cpu(arguments):
        yield f"attn_implementation: {config.attn_implementation} needs a GPU"
    elif flash and config.torch_dtype in (None, "float32") and not (arguments.bf16 or arguments.fp16):
        yield (
            f"attn_implementation: {config.attn_implementation} computes in 16 bits only"
            " (torch_dtype=bfloat16 or bf16=true)"
        )


def _kernel_problems(arguments: TrainingArguments) -> Iterator[str]:
    if arguments.use_liger_kernel and _on_cpu(arguments):
        yield "use_liger_kernel: Liger's kernels are written in Triton and need a GPU"
    elif arguments.use_liger_kernel and importlib.util.find_spec("liger_kernel") is None:
        yield "use_liger_kernel: liger-kernel is not installed; pip install 'sftkit[liger]'"
    if arguments.torch_compile and _on_cpu(arguments) and not any(map(shutil.which, _COMPILERS)):
        yield f"torch_compile: on the CPU it needs a C++ compiler ({', '.join(_COMPILERS)})"


def _on_cpu(arguments: TrainingArguments) -> bool:
    return bool(arguments.device.type == "cpu")
