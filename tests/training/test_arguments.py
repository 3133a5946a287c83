from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.errors import ConfigError, TrainingError
from sftkit.training.arguments import argument_fields
from sftkit.training.arguments.argument_fields import source_fields, union_members
from sftkit.training.arguments.build_arguments import (
    argument_problems,
    extra_keys,
    make_training_arguments,
    training_argument_fields,
)
from sftkit.training.arguments.coercion import coerce
from sftkit.training.arguments.legacy_arguments import REMOVED_ARGUMENTS
from sftkit.training.distributed import disable_fsdp_on_cpu


def arguments(*argv: str) -> Any:
    config = load_config(TrainConfig, ["--output_dir=out", "--model_name_or_path=m", *argv], extra_keys=extra_keys())
    return make_training_arguments(config)


def coerced(**given: Any) -> dict[str, Any]:
    problems: list[str] = []
    values = coerce(given, training_argument_fields(), problems)
    assert problems == []
    return values


def test_the_source_has_the_fields_of_the_class() -> None:
    from transformers import TrainingArguments

    assert list(source_fields()) == [field.name for field in dataclasses.fields(TrainingArguments)]


def test_annotations_evaluated_from_the_source_are_those_of_the_class() -> None:
    from transformers import TrainingArguments

    def name(annotation: Any) -> str:
        """A type without the modules of its parts, which differ for stand-ins of transformers' classes."""
        members = [getattr(member, "__name__", "") or str(member) for member in union_members(annotation)]
        return " | ".join("dict" if member == "ParallelismConfig" else member for member in members)

    hints = typing.get_type_hints(TrainingArguments)
    assert {key: name(field.annotation) for key, field in source_fields().items()} == {
        key: name(hints[key]) for key in source_fields()
    }


def test_an_annotation_that_cannot_be_evaluated_is_a_training_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "class TrainingArguments:\n    output_dir: int[str] = field(metadata={'help': 'Where to write.'})\n"
    (tmp_path / "training_args.py").write_text(source)
    (tmp_path / "trainer_utils.py").write_text("")
    monkeypatch.setattr(argument_fields, "_transformers_folder", lambda: tmp_path)
    with pytest.raises(TrainingError, match=r"the type int\[str\] in transformers' training_args\.py cannot be read"):
        source_fields.__wrapped__()


def test_every_field_has_help_and_a_type() -> None:
    assert all(field.help and field.annotation for field in training_argument_fields().values())


def test_removed_arguments_do_not_shadow_present_ones() -> None:
    assert not set(REMOVED_ARGUMENTS) & set(source_fields())


def test_reading_the_fields_does_not_import_torch_or_transformers() -> None:
    code = (
        "import sys, sftkit.training.arguments.build_arguments as a;"
        "a.training_argument_fields(); a.argument_problems({'x': 1});"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("learning_rate", "1e-06", 1e-06),
        ("learning_rate", 1e-06, 1e-06),
        ("max_steps", "12400", 12400),
        ("max_steps", "1e3", 1000),
        ("num_train_epochs", 3, 3.0),
        ("bf16", "True", True),
        ("bf16", "off", False),
        ("tf32", "null", None),
        ("tf32", "", None),
        ("activation_checkpointing_kwargs", '{"use_reentrant": true}', {"use_reentrant": True}),
        ("activation_checkpointing_kwargs", "{use_reentrant: false}", {"use_reentrant": False}),
        ("activation_checkpointing_kwargs", {"use_reentrant": True}, {"use_reentrant": True}),
        ("accelerator_config", "settings.json", "settings.json"),
        ("report_to", "none", "none"),
        ("report_to", "tensorboard,wandb", ["tensorboard", "wandb"]),
        ("report_to", ["tensorboard"], ["tensorboard"]),
        ("label_names", "[a, b]", ["a", "b"]),
        ("save_strategy", False, "no"),
        ("save_strategy", "Epoch", "epoch"),
        ("eval_steps", None, None),
        ("fsdp", "true", True),
        ("resume_from_checkpoint", "last", "last"),
        ("resume_from_checkpoint", True, True),
        ("include_num_input_tokens_seen", "non_padding", "non_padding"),
        ("include_num_input_tokens_seen", "true", True),
        ("trackio_static_space_id", "false", False),
        ("optim", "adamw_torch", "adamw_torch"),
        ("hub_model_id", 7, "7"),
    ],
)
def test_values_are_converted_to_the_type_of_the_field(key: str, given: Any, expected: Any) -> None:
    value = coerced(**{key: given})[key]
    assert value == expected
    assert type(value) is type(expected)


def test_all_problems_are_reported_together() -> None:
    problems = argument_problems(
        {
            "learning_rat": 1,
            "max_steps": "many",
            "per_device_train_batch_size": 2.5,
            "bf16": "perhaps",
            "save_strategy": "sometimes",
            "optim": "adamw_torsh",
            "logging_steps": None,
            "lr_scheduler_kwargs": [1],
            "warmup_ratio": 2,
        }
    )
    assert problems == [
        "unknown key 'learning_rat' (did you mean 'learning_rate'?)",
        "max_steps must be a whole number, not 'many'",
        "per_device_train_batch_size must be a whole number, not 2.5",
        "bf16 must be true or false, not 'perhaps'",
        "save_strategy must be one of no, steps, epoch, best, not 'sometimes'",
        f"optim must be one of {len(training_argument_fields()['optim'].choices)} known names"
        " (did you mean 'adamw_torch'?), not 'adamw_torsh'",
        "logging_steps must be a number, not nothing",
        "lr_scheduler_kwargs must be keys and values or text, not a list",
        "warmup_ratio must be between 0 and 1, not 2.0",
    ]


def test_the_flags_of_a_whole_fms_hf_tuning_command_take_effect() -> None:
    made = arguments(
        "--training_data_path=/test/data", "--adam_beta1=0.9", "--adam_beta2=0.98", "--adam_epsilon=1e-10",
        "--aim_repo=", "--dataloader_drop_last=true", "--dataset_text_field=random", "--evaluation_strategy=no",
        "--experiment=train-nb", "--gradient_accumulation_steps=1", "--gradient_checkpointing=true",
        "--include_tokens_per_second=false", "--instruction_template=<|user|>", "--learning_rate=1e-06",
        "--logging_steps=1", "--logging_strategy=steps", "--lr_scheduler_type=cosine", "--max_seq_length=8192",
        "--max_steps=12400", "--num_train_epochs=3", "--optim=adamw_torch", "--packing=False",
        "--per_device_train_batch_size=32", "--response_template=<|assistant|>", "--save_steps=100",
        "--save_strategy=steps", "--split_batches=true", "--torch_dtype=bfloat16", "--use_flash_attn=true",
        "--use_reentrant=true", "--warmup_ratio=0.1", "--warmup_steps=200", "--weight_decay=0.1",
    )  # fmt: skip
    assert (made.adam_beta1, made.adam_beta2, made.adam_epsilon, made.weight_decay) == (0.9, 0.98, 1e-10, 0.1)
    assert (made.learning_rate, made.lr_scheduler_type, made.optim) == (1e-06, "cosine", "adamw_torch")
    assert (made.max_steps, made.num_train_epochs, made.get_warmup_steps(12400)) == (12400, 3.0, 200)
    assert (made.logging_steps, made.logging_strategy) == (1, "steps")
    assert (made.save_steps, made.save_strategy) == (100, "steps")
    assert (made.eval_strategy, made.do_eval) == ("no", False)
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (32, 1)
    assert made.dataloader_drop_last is True
    assert made.accelerator_config.split_batches is True
    assert made.gradient_checkpointing is True
    assert made.gradient_checkpointing_kwargs == {"use_reentrant": True}
    assert (made.run_name, made.report_to, made.output_dir) == ("train-nb", [], "out")


def test_by_default_every_tenth_step_is_logged_and_no_tracker_is_used() -> None:
    made = arguments()
    assert (made.logging_steps, made.report_to, made.save_strategy, made.disable_tqdm) == (10, [], "steps", True)


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (["--warmup_ratio=0.1"], 10),
        (["--warmup_ratio=0.1", "--warmup_steps=0"], 10),
        (["--warmup_ratio=0.1", "--warmup_steps=30"], 30),
        (["--warmup_ratio=1"], 100),
        (["--warmup_steps=0.25"], 25),
    ],
)
def test_warmup_steps_of_a_run_of_100_steps(flags: list[str], steps: int) -> None:
    assert arguments(*flags).get_warmup_steps(100) == steps


@pytest.mark.parametrize(
    ("flag", "name", "value"),
    [
        ("--group_by_length=true", "train_sampling_strategy", "group_by_length"),
        ("--group_by_length=false", "train_sampling_strategy", "random"),
        ("--per_gpu_train_batch_size=3", "per_device_train_batch_size", 3),
        ("--adafactor", "optim", "adafactor"),
        ("--no_cuda", "use_cpu", True),
        ("--evaluation_strategy=epoch", "eval_strategy", "epoch"),
        ("--push_to_hub_model_id=a/b", "hub_model_id", "a/b"),
    ],
)
def test_removed_arguments_set_their_replacement(flag: str, name: str, value: Any) -> None:
    assert getattr(arguments(flag), name) == value


def test_a_removed_argument_without_replacement_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    arguments("--overwrite_output_dir=true", "--save_safetensors=true", "--fp16_backend=apex")
    assert [record.message for record in caplog.records] == [
        "overwrite_output_dir has no effect: output_dir is always written to, and other files in it are left alone",
        "fp16_backend has no effect: set bf16 or fp16 to choose mixed precision",
    ]


def test_logging_dir_sets_the_directory_of_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "before")
    arguments("--logging_dir=events")
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == "events"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--load_best_model_at_end=true"], "load_best_model_at_end requires the save and eval strategy to match"),
        (["--logging_steps=0"], "logging strategy"),
        (["--bf16", "--fp16"], "At most one of fp16 and bf16"),
        (["--warmup_steps=-1"], "warmup_steps"),
        (["--accelerator_config={no_such: 1}"], "no_such"),
    ],
)
def test_arguments_that_transformers_refuses_are_a_config_error(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        arguments(*flags)
    assert "\n" not in str(raised.value)


def test_a_missing_tracker_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tensorboard is not installed; pip install 'sftkit\[tensorboard\]'"):
        arguments("--report_to=tensorboard")


def test_a_batch_that_cannot_be_split_evenly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"a batch of 7 .* cannot be split evenly over 2 processes"):
        arguments("--split_batches", "--per_device_train_batch_size=7")


def test_yaml_keys_and_options_with_dashes_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("learning_rate: 1e-6\nsave_strategy: no\ntraining_arguments:\n  seed: 3\n")
    made = arguments(f"--config={tmp_path / 'c.yaml'}", "--max-steps", "5", "weight_decay=0.5")
    assert (made.learning_rate, made.save_strategy, made.seed) == (1e-6, "no", 3)
    assert (made.max_steps, made.weight_decay) == (5, 0.5)


def test_fsdp_of_the_launcher_is_disabled_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    arguments("--use_cpu=true")
    assert os.environ["ACCELERATE_USE_FSDP"] == os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert [record.message for record in caplog.records] == [
        "FSDP needs a GPU and this run has none: the processes train data-parallel on the CPU instead"
    ]


def test_fsdp_of_the_launcher_stays_enabled_with_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr("sftkit.training.distributed.accelerator_available", lambda: True)
    disable_fsdp_on_cpu()
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    disable_fsdp_on_cpu(use_cpu=True)
    assert os.environ["ACCELERATE_USE_FSDP"] == "false"
