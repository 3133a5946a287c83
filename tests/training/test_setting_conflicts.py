from __future__ import annotations

import importlib.util
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from sftkit.config.commands import TrainConfig
from sftkit.config.schema import ProcessorConfig
from sftkit.errors import ConfigError
from sftkit.training.arguments.setting_conflicts import check_combinations, use_one_gpu

STREAMING = ProcessorConfig(streaming=True)


def arguments(**given: Any) -> TrainingArguments:
    return TrainingArguments(output_dir="out", use_cpu=True, **given)


def config(**given: Any) -> TrainConfig:
    return TrainConfig(output_dir="out", model_name_or_path="model", **given)


def on(device: str, **given: Any) -> Any:
    """What is read of TrainingArguments, which would look for the GPU, and set the environment for torch_compile."""
    settings = {"bf16": False, "fp16": False, "use_liger_kernel": False, "torch_compile": False, **given}
    return SimpleNamespace(device=torch.device(device), **settings)


def on_gpu(**given: Any) -> Any:
    return on("cuda", **given)


def problems(config: TrainConfig, arguments: Any) -> list[str]:
    try:
        check_combinations(config, arguments)
    except ConfigError as error:
        return list(error.problems)
    return []


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Optional packages that are there as far as anyone can tell; empty it to take them away."""
    here = {"peft", "bitsandbytes", "liger_kernel"}
    optional, found = frozenset(here), importlib.util.find_spec
    spec = found("json")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: (spec if name in here else None) if name in optional else found(name, *rest),
    )
    return here


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("given", "run"),
    [
        ({}, arguments()),
        ({"use_peft": True, "merge_lora": True}, arguments(bf16=True)),
        ({"load_in_4bit": True, "merge_lora": True}, on_gpu(bf16=True)),
        ({"attn_implementation": "flash_attention_2"}, on_gpu(bf16=True)),
        ({"attn_implementation": "flash_attention_2", "torch_dtype": "bfloat16"}, on_gpu()),
        ({"attn_implementation": "sdpa"}, arguments(gradient_checkpointing=True)),
        ({}, on_gpu(use_liger_kernel=True)),
        ({"use_peft": True, "torch_dtype": "float16"}, on_gpu(fp16=True)),  # adapters are float32
        ({"dataprocessor": STREAMING}, arguments(num_train_epochs=2)),
    ],
)
def test_what_works_is_let_through(given: dict[str, Any], run: Any) -> None:
    assert problems(config(**given), run) == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("given", "run", "said"),
    [
        ({"merge_lora": True}, arguments(), "merge_lora: there are no adapters to merge without use_peft"),
        ({"use_peft": True, "init_from_config": True}, arguments(), "use_peft needs a model that was trained: "),
        ({"use_peft": True, "lora_dropout": 1.0}, arguments(), "lora_dropout must be 0 or more and less than 1, not 1"),
        ({"use_peft": True, "lora_target_modules": ()}, arguments(), "lora_target_modules is empty; all-linear "),
        (
            {"attn_implementation": "flash_attention_3"},
            arguments(),
            "attn_implementation: flash_attention_3 needs a GPU",
        ),
        (
            {"attn_implementation": "flash_attention_2"},
            on_gpu(),
            "attn_implementation: flash_attention_2 computes in 16 bits only",
        ),
        (
            {"dataprocessor": STREAMING, "tokens_per_device_batch": 100},
            arguments(),
            "tokens_per_device_batch needs the lengths of all rows beforehand; leave out streaming",
        ),
        (
            {"dataprocessor": STREAMING},
            arguments(train_sampling_strategy="group_by_length"),
            "train_sampling_strategy: group_by_length needs the lengths of all rows beforehand; leave out streaming",
        ),
        ({"torch_dtype": "float16"}, on_gpu(fp16=True), "fp16=true scales gradients, which must not be float16"),
        (
            {},
            arguments(use_liger_kernel=True),
            "use_liger_kernel: Liger's kernels are written in Triton and need a GPU",
        ),
    ],
)
def test_what_cannot_work_is_one_sentence(given: dict[str, Any], run: Any, said: str) -> None:
    [problem] = problems(config(**given), run)
    assert problem.startswith(said)


def test_what_is_not_installed_is_named_with_its_extra(installed: set[str]) -> None:
    installed.clear()
    assert problems(config(use_peft=True, load_in_4bit=True), on_gpu(use_liger_kernel=True)) == [
        "use_peft: peft is not installed; pip install 'sftkit[peft]'",
        "load_in_4bit: peft and bitsandbytes are needed; pip install 'sftkit[qlora]'",
        "use_liger_kernel: liger-kernel is not installed; pip install 'sftkit[liger]'",
    ]


def test_compiling_on_the_cpu_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    run = on("cpu", torch_compile=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert problems(config(), run) == ["torch_compile: on the CPU it needs a C++ compiler (c++, g++, clang++)"]
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    assert problems(config(), run) == []


def test_of_several_gpus_without_a_launcher_one_is_used_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    run = arguments()
    use_one_gpu(run)
    assert caplog.messages == []
    run._n_gpu = 4
    use_one_gpu(run)
    use_one_gpu(run)
    assert (run.n_gpu, run.train_batch_size) == (1, 8)
    assert caplog.messages == [
        "4 GPUs are visible and one is used; `torchrun --nproc_per_node 4 -m sftkit train ...` uses all of them"
    ]


def test_rows_are_not_spread_over_processes() -> None:
    sizes = SimpleNamespace(dp_shard_size=2, tp_size=2, cp_size=1)
    [said] = problems(config(), on("cpu", parallelism_config=sizes))
    assert said.startswith("parallelism_config: tp_size spreads one row over processes")
    assert problems(config(), on("cpu", parallelism_config=SimpleNamespace(dp_shard_size=2))) == []
