from __future__ import annotations

import importlib.util
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from sftkit.config.commands import TrainConfig
from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.errors import ConfigError
from sftkit.training.arguments.checks.setting_conflicts import check_combinations, use_one_gpu

STREAMING = ProcessorConfig(streaming=True)


def arguments(**given: Any) -> TrainingArguments:
    return TrainingArguments(output_dir="out", use_cpu=True, do_train=True, **given)


def config(**given: Any) -> TrainConfig:
    return TrainConfig(output_dir="out", model_name_or_path="model", **given)


def on(device: str, **given: Any) -> Any:
    """The attributes that are read of TrainingArguments; the real class would look for the device."""
    settings = {"bf16": False, "fp16": False, "use_liger_kernel": False, "torch_compile": False, "do_train": True}
    settings |= {"world_size": 1, "distributed_state": None}
    return SimpleNamespace(device=torch.device(device), optim="adamw_torch", **settings | given)


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
    """Optional packages that appear to be installed; remove some to make them appear missing."""
    present = {"peft", "bitsandbytes", "liger_kernel"}
    optional, found = frozenset(present), importlib.util.find_spec
    spec = found("json")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: (spec if name in present else None) if name in optional else found(name, *rest),
    )
    return present


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
        ({"use_peft": True, "torch_dtype": "float16"}, on_gpu(fp16=True)),  # the adapters are float32
        ({"dataprocessor": STREAMING}, arguments(num_train_epochs=2)),
    ],
)
def test_valid_combinations_are_accepted(given: dict[str, Any], run: Any) -> None:
    assert problems(config(**given), run) == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("given", "run", "message"),
    [
        ({"merge_lora": True}, arguments(), "merge_lora needs adapters; set use_peft=true"),
        ({"use_peft": True, "init_from_config": True}, arguments(), "use_peft needs a trained model: "),
        (
            {"use_peft": True, "lora_dropout": 1.0},
            arguments(),
            "lora_dropout must be at least 0 and less than 1, not 1",
        ),
        ({"use_peft": True, "lora_target_modules": ()}, arguments(), "lora_target_modules is empty; use all-linear "),
        (
            {"attn_implementation": "flash_attention_3"},
            arguments(),
            "attn_implementation: flash_attention_3 needs a GPU",
        ),
        (
            {"attn_implementation": "flash_attention_2"},
            on_gpu(),
            "attn_implementation: flash_attention_2 only computes in 16 bits",
        ),
        (
            {"dataprocessor": STREAMING, "tokens_per_device_batch": 100},
            arguments(),
            "tokens_per_device_batch needs the lengths of all rows in advance; set streaming=false",
        ),
        (
            {"dataprocessor": STREAMING},
            arguments(train_sampling_strategy="group_by_length"),
            "train_sampling_strategy=group_by_length needs the lengths of all rows in advance; set streaming=false",
        ),
        (
            {"torch_dtype": "float16"},
            on_gpu(fp16=True),
            "fp16=true scales gradients, which a float16 model does not allow",
        ),
        (
            {},
            arguments(use_liger_kernel=True),
            "use_liger_kernel needs a GPU: Liger's kernels are written in Triton",
        ),
    ],
)
def test_each_invalid_combination_gives_one_problem(given: dict[str, Any], run: Any, message: str) -> None:
    [problem] = problems(config(**given), run)
    assert problem.startswith(message)


def test_missing_packages_are_named_with_their_extra(installed: set[str]) -> None:
    installed.clear()
    assert problems(config(use_peft=True, load_in_4bit=True), on_gpu(use_liger_kernel=True)) == [
        "use_peft: peft is not installed; pip install 'sftkit[peft]'",
        "load_in_4bit needs peft and bitsandbytes; pip install 'sftkit[qlora]'",
        "use_liger_kernel: liger-kernel is not installed; pip install 'sftkit[liger]'",
    ]


def test_torch_compile_on_the_cpu_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    run = on("cpu", torch_compile=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert problems(config(), run) == [
        "torch_compile needs a C++ compiler on the CPU; install one of c++, g++, clang++"
    ]
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    assert problems(config(), run) == []


def test_without_a_launcher_one_of_several_gpus_is_used_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    run = arguments()
    use_one_gpu(run)
    assert caplog.messages == []
    run._n_gpu = 4
    use_one_gpu(run)
    use_one_gpu(run)
    assert (run.n_gpu, run.train_batch_size) == (1, 8)
    assert caplog.messages == [
        "4 GPUs are visible but only one is used; to use all of them, start the run with"
        " `torchrun --nproc_per_node 4 -m sftkit train ...`"
    ]


def test_parallelism_that_splits_rows_is_refused() -> None:
    for key, words in (("cp_size", "cannot keep the rows of a batch apart"), ("sp_size", "DeepSpeed's own batches")):
        [problem] = problems(config(), on("cpu", parallelism_config=SimpleNamespace(**{key: 2})))
        assert problem.startswith(f"parallelism_config: {key} divides sequences over processes")
        assert words in problem
    sizes = SimpleNamespace(dp_shard_size=1, tp_size=2)
    found = problems(config(use_peft=True), on("cpu", parallelism_config=sizes, save_strategy="steps", world_size=3))
    assert [problem.partition(";")[0] for problem in found] == [
        "parallelism_config: tp_size=2 needs a multiple of 2 processes, and there are 3",
        "parallelism_config: tp_size=2 does not work with use_peft",
        "parallelism_config: with tp_size=2, a checkpoint would have a part of the optimizer only",
    ]
    assert problems(config(), on("cpu", parallelism_config=SimpleNamespace(dp_shard_size=2))) == []
