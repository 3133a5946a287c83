"""Find settings that cannot work together, or not on this machine, before any data is read."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, RequirementError
from sftkit.training.arguments.checks.optimizer_checks import optimizer_problems
from sftkit.training.distributed import uses_deepspeed, warn_on_main_process
from sftkit.training.loading.checkpointing_checks import checkpointing_problems, lacking_accelerator
from sftkit.training.loading.setting_checks import loading_problems
from sftkit.training.tensor_parallel import lacking_gpus, parallelism_problems

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)

_COMPILERS = ("c++", "g++", "clang++")


def check_combinations(config: TrainConfig, arguments: TrainingArguments) -> None:
    """Refuse settings that would fail only once the model computes.

    Raises:
        ConfigError: with every problem found.
        RequirementError: if all of them are that this machine lacks a package or hardware.
    """
    problems = [
        *_work_problems(arguments),
        *_streaming_problems(config, arguments),
        *parallelism_problems(config, arguments),
        *_adapter_problems(config),
        *_precision_problems(config, arguments),
        *_loss_problems(config, arguments),
        *loading_problems(config),
        *checkpointing_problems(config, arguments),
        *optimizer_problems(config, arguments),
    ]
    lacking = [*missing_adapter_packages(config)]
    if not config.dry_run:  # a plan is made on any machine
        lacking += _lacking_hardware(config, arguments)
        lacking += lacking_gpus(arguments)
        lacking += lacking_accelerator(config, arguments)
        lacking += _lacking_kernels(arguments)
    if problems:
        raise ConfigError([*problems, *lacking])
    if lacking:
        raise RequirementError(lacking)


def use_one_gpu(arguments: TrainingArguments) -> None:
    """Use a single GPU when several are visible but there is no launcher.

    The Trainer would spread each batch over them with DataParallel. That cuts the single row of a padding-free batch
    at arbitrary places, and is slower than one process per GPU in any case.
    """
    if arguments.n_gpu > 1:
        warn_on_main_process(
            _log,
            f"{arguments.n_gpu} GPUs are visible but only one is used; to use all of them, start the run with"
            f" `torchrun --nproc_per_node {arguments.n_gpu} -m sftkit train ...`",
        )
        arguments._n_gpu = 1  # the Trainer itself does this for models that are split over the GPUs


def _work_problems(arguments: TrainingArguments) -> Iterator[str]:
    if not arguments.do_train and not arguments.do_eval:
        yield "do_train=false leaves nothing to do; set do_eval=true to evaluate the model without training it"
    if not arguments.do_train and arguments.deepspeed:
        yield "do_train=false: evaluation alone does not work with DeepSpeed; remove deepspeed"


def _streaming_problems(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    if not config.dataprocessor.streaming:
        return
    reason = "needs the lengths of all rows in advance; set streaming=false"
    if config.tokens_per_device_batch is not None:
        yield f"tokens_per_device_batch {reason}"
    if arguments.train_sampling_strategy == "group_by_length":
        yield f"train_sampling_strategy=group_by_length {reason}"


def _adapter_problems(config: TrainConfig) -> Iterator[str]:
    adapters = config.use_peft or config.load_in_4bit
    if config.merge_lora and not adapters:
        yield "merge_lora needs adapters; set use_peft=true"
    if adapters and config.init_from_config:
        yield (
            "use_peft needs a trained model: init_from_config starts from random weights, and adapters to those can be"
            " used with no other model; set init_from_config=false, or use_peft=false"
        )
    if config.lora_dropout is not None and not 0 <= config.lora_dropout < 1:
        yield f"lora_dropout must be at least 0 and less than 1, not {config.lora_dropout:g}"
    if adapters and not config.lora_target_modules:
        yield "lora_target_modules is empty; use all-linear for every linear module except the output head"


def missing_adapter_packages(config: TrainConfig) -> Iterator[str]:
    """Yield a sentence for each package that adapters need and that is missing; nothing is imported.

    The plan of a run (`dry_run`) does not quantize, so it needs no bitsandbytes.
    """
    named = next((key for key in ("use_peft", "adapter_name_or_path", "merge_only") if getattr(config, key)), None)
    if named is not None and importlib.util.find_spec("peft") is None:
        yield f"{named}: peft is not installed; pip install 'sftkit[peft]'"
    if config.dry_run:
        return
    if config.load_in_4bit and not all(map(importlib.util.find_spec, ("peft", "bitsandbytes"))):
        yield "load_in_4bit needs peft and bitsandbytes; pip install 'sftkit[qlora]'"
    given = config.quantization_config
    if (given.get("load_in_8bit") or given.get("load_in_4bit")) and importlib.util.find_spec("bitsandbytes") is None:
        yield "quantization_config needs bitsandbytes; pip install 'sftkit[qlora]'"


def _precision_problems(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    if config.torch_dtype == "float16" and arguments.fp16 and not (config.use_peft or config.load_in_4bit):
        yield (
            "fp16=true scales gradients, which a float16 model does not allow: remove torch_dtype=float16, or use"
            " bfloat16"
        )
    in_32_bits = config.torch_dtype in (None, "float32") and not (arguments.bf16 or arguments.fp16)
    if _uses_flash_attention(config) and in_32_bits and not _on_cpu(arguments):
        yield (
            f"attn_implementation: {config.attn_implementation} only computes in 16 bits; set torch_dtype=bfloat16 or"
            " bf16=true"
        )


def _loss_problems(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    if not config.loss_chunk_size:
        return
    if arguments.torch_compile:
        yield "loss_chunk_size does not work with torch_compile; remove one of them"
    if arguments.use_liger_kernel:
        yield "loss_chunk_size: the loss of use_liger_kernel is computed in chunks already; remove loss_chunk_size"
    if uses_deepspeed(arguments):
        yield "loss_chunk_size does not work with DeepSpeed; remove loss_chunk_size"


def _lacking_hardware(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    if _uses_flash_attention(config) and _on_cpu(arguments):
        yield f"attn_implementation: {config.attn_implementation} needs a GPU"


def _lacking_kernels(arguments: TrainingArguments) -> Iterator[str]:
    if arguments.use_liger_kernel and _on_cpu(arguments):
        yield "use_liger_kernel needs a GPU: Liger's kernels are written in Triton"
    elif arguments.use_liger_kernel and importlib.util.find_spec("liger_kernel") is None:
        yield "use_liger_kernel: liger-kernel is not installed; pip install 'sftkit[liger]'"
    if arguments.torch_compile and _on_cpu(arguments) and not any(map(shutil.which, _COMPILERS)):
        yield f"torch_compile needs a C++ compiler on the CPU; install one of {', '.join(_COMPILERS)}"


def _uses_flash_attention(config: TrainConfig) -> bool:
    return (config.attn_implementation or "").startswith("flash_attention")


def _on_cpu(arguments: TrainingArguments) -> bool:
    return bool(arguments.device.type == "cpu")
