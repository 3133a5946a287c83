"""Bad values of training arguments are found when the config is loaded, with exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reliability.material import sftkit
from sftkit.training.arguments.build_arguments import argument_problems, training_argument_fields
from support import without_progress

DATA = ("--training_data_path", "nowhere", "--model_name_or_path", "sample:model", "--output_dir", "out")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("learning_rate", "-1", "must be 0 or more, not -1"),
        ("num_train_epochs", "-0.5", "must be 0 or more, not -0.5"),
        ("warmup_steps", "-1", "must be 0 or more, not -1"),
        ("adam_beta2", "1", "must be at least 0 and less than 1, not 1"),
        ("label_smoothing_factor", "1.5", "must be between 0 and 1, not 1.5"),
        ("neftune_noise_alpha", "-1", "must be 0 or more, not -1"),
        ("gradient_accumulation_steps", "0", "must be 1 or more, not 0"),
        ("seed", "4294967296", "must be at least 0 and less than 4294967296, not 4294967296"),
        ("dataloader_num_workers", "-1", "must be 0 or more, not -1"),
        ("save_steps", "0", "must be more than 0, not 0"),
        ("logging_steps", "-5", "must be more than 0, not -5"),
        ("optim_args", "fast", "must be key=value pairs with commas between them, not 'fast'"),
        ("lr_scheduler_kwargs", "fast", "must be keys and values, such as '{a: 1}', not 'fast'"),
        ("log_level_replica", "loud", "must be one of debug, info, warning, error, critical, passive, not 'loud'"),
        ("torch_compile_mode", "fast", "must be one of default, reduce-overhead, max-autotune, "
                                       "max-autotune-no-cudagraphs, not 'fast'"),
        ("include_num_input_tokens_seen", "some", "must be one of all, non_padding, no, not 'some'"),
    ],
)  # fmt: skip
def test_each_bad_value_is_one_sentence(key: str, value: str, problem: str) -> None:
    assert argument_problems({key: value}) == [f"{key} {problem}"]


@pytest.mark.parametrize(
    "given",
    [
        {"save_steps": 0, "save_strategy": "no"},
        {"logging_steps": 0, "logging_strategy": "epoch"},
        {"eval_steps": 0, "warmup_steps": 0.1, "max_steps": -1, "save_total_limit": 0},
        {"optim_args": "rank=64, scale=0.1"},
        {"lr_scheduler_kwargs": "{num_cycles: 2}"},
        {"include_num_input_tokens_seen": "true"},
        {"seed": 0, "adam_beta1": 0, "learning_rate": 0, "max_grad_norm": 0},
    ],
)
def test_values_at_the_edge_are_accepted(given: dict[str, Any]) -> None:
    assert argument_problems(given) == []


def test_a_value_of_the_wrong_type_is_found_for_every_number() -> None:
    numbers = [name for name, field in training_argument_fields().items() if field.kind in ("INTEGER", "NUMBER")]
    assert len(numbers) > 30
    for name in numbers:
        for value in ("abc", "[1, 2]", "{a: 1}", "true"):
            [problem] = argument_problems({name: value})
            assert problem.startswith(f"{name} must be a "), problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("learning_rate", value) for value in ("abc", "-1", "nan", "")),
        ("lr_scheduler_type", "foo"), ("optim", "foo"), ("bf16", "maybe"), ("report_to", "foo"), ("save_steps", "0"),
        ("packing", "foo"), ("max_seq_length", "0"), ("lora_r", "0"), ("torch_dtype", "int8"), ("log_level", "loud"),
    ],
)  # fmt: skip
def test_a_bad_value_is_exit_code_2_on_the_command_line_and_in_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = sftkit("train", *DATA, f"--{key}={value}")
    Path("run.yaml").write_text(f"{key}: '{value}'\n")
    in_file = sftkit("train", *DATA, "--config", "run.yaml")
    assert (typed.code, in_file.code) == (2, 2), typed.err + in_file.err
    assert without_progress(typed.err) == without_progress(in_file.err)
    assert key in typed.err
