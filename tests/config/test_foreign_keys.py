"""Keys of axolotl, TRL, LLaMA-Factory, open-instruct and ms-swift: the error names the key to write instead."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sftkit.config.aliases import KEY_ALIASES, PATH_ALIASES
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.foreign_keys.data_keys import DATA_KEYS
from sftkit.config.foreign_keys.dataset_keys import DATASET_KEYS, FOREIGN_VALUES
from sftkit.config.foreign_keys.foreign_key import TOOLS, ForeignKey
from sftkit.config.foreign_keys.model_keys import MODEL_KEYS
from sftkit.config.foreign_keys.training_keys import TRAINING_KEYS, USUAL_TRAINING_ARGUMENTS
from sftkit.config.loading import load_config
from sftkit.config.schema.data_config import DatasetConfig, ProcessorConfig
from sftkit.errors import ConfigError
from sftkit.handlers.registry import build_handlers
from sftkit.training.arguments.build_arguments import argument_problems, extra_keys

TOP_LEVEL_KEYS = (*MODEL_KEYS, *DATA_KEYS, *TRAINING_KEYS)
COMMANDS = {"preprocess": PreprocessConfig, "inspect-shards": InspectConfig, "train": TrainConfig}
SUGGESTED = {
    "base_model": "model_name_or_path",
    "sequence_len": "max_seq_length",
    "cutoff_len": "max_seq_length",
    "max_length": "max_seq_length",
    "micro_batch_size": "per_device_train_batch_size",
    "num_epochs": "num_train_epochs",
    "val_set_size": "val_size",
    "sample_packing": "packing",
    "eval_sample_packing": "packing",
    "train_on_inputs": "train_on",
    "train_on_eos": "train_on_stop",
    "train_on_eot": "train_on_stop",
    "adapter": "use_peft",
    "lora_target_linear": "lora_target_modules",
    "model": "model_name_or_path",
    "dataset_name": "training_data_path",
    "dataset": "training_data_path",
    "template": "chat_template",
    "finetuning_type": "use_peft",
    "assistant_only_loss": "train_on",
    "completion_only_loss": "train_on",
    "dataset_mixer": "datasets",
    "dataset_mixer_list": "datasets",
    "model_name": "model_name_or_path",
    "tokenizer_name": "tokenizer_name_or_path",
    "flash_attention": "use_flash_attn",
    "chat_template_jinja": "chat_template",
    "special_tokens": "add_special_tokens",
    "optimizer": "optim",
    "lr_scheduler": "lr_scheduler_type",
    "eval_dataset": "validation_data_path",
    "val_dataset": "validation_data_path",
    "split_dataset_ratio": "val_size",
    "max_train_samples": "max_samples",
    "preprocessing_num_workers": "num_workers",
    "train_type": "use_peft",
    "quant_bits": "load_in_4bit",
    "keep_last_n_checkpoints": "save_total_limit",
    "field_messages": "datasets[0].data_handlers",
}
IN_DATASETS = {
    "path": "data_paths",
    "type": "data_handlers",
    "ds_type": "builder",
    "field_messages": "data_handlers",
    "message_field_role": "data_handlers",
    "message_property_mappings": "data_handlers",
    "roles": "data_handlers",
    "chat_template": "dataprocessor.chat_template",
    "chat_template_jinja": "dataprocessor.chat_template",
    "roles_to_train": "roles_to_train",
    "file_name": "data_paths",
    "sequence_len": "max_seq_length",
}


def of_command(command: str, *arguments: str) -> str:
    """The error of a command line."""
    schema: Any = COMMANDS[command]
    with pytest.raises(ConfigError) as caught:
        load_config(schema, arguments, extra_keys=extra_keys() if command == "train" else {})
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_key_is_suggested_on_the_command_line(command: str) -> None:
    for name, key in SUGGESTED.items():
        for option in (f"--{name}", f"--{name.replace('_', '-')}"):
            message = of_command(command, option, "x", "--output_dir", "out")
            assert f"unknown option {option} (did you mean '{key}'" in message


@pytest.mark.parametrize("command", COMMANDS)
def test_the_key_is_suggested_in_files(tmp_path: Path, command: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"{name}: x\n" for name in SUGGESTED))
    output = () if command == "inspect-shards" else ("--output_dir", "out")
    problems = of_command(command, "--config", str(path), *output).splitlines()
    for name, key in SUGGESTED.items():
        assert any(each.startswith(f"unknown key '{name}' (did you mean '{key}'") for each in problems)


def test_the_key_is_suggested_in_an_entry_of_datasets(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("datasets:\n- name: a\n" + "".join(f"  {name}: x\n" for name in IN_DATASETS))
    message = of_command("preprocess", "--data_config_path", str(path), "--output_dir", "out")
    for name, key in IN_DATASETS.items():
        assert f"unknown key 'datasets[0].{name}' (did you mean '{key}'" in message
        typed = of_command("preprocess", f"datasets[0].{name}=x", "--output_dir", "out")
        assert f"unknown option datasets[0].{name} (did you mean '{key}'" in typed


def test_the_key_is_suggested_in_other_sections() -> None:
    message = of_command("preprocess", "dataprocessor.cutoff_len=5", "--output_dir", "out")
    assert message.endswith("(did you mean 'max_seq_length', a key at the top level?)")
    [problem] = argument_problems({"num_epochs": 3})
    assert problem == "unknown key 'num_epochs' (did you mean 'num_train_epochs'?)"
    [problem] = argument_problems({"base_model": "x"})
    assert problem == "unknown key 'base_model' (did you mean 'model_name_or_path', a key at the top level?)"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("train_on_inputs", "`true` is train_on=all; `false` is the default"),
        ("sample_packing", "`true` is packing=bfd, and needs max_seq_length"),
        ("adapter", "`lora` is use_peft=true, `qlora` is load_in_4bit=true"),
        ("finetuning_type", "`lora` is use_peft=true, `full` is the default"),
        ("mask_history", "`true` is train_on=last_assistant"),
        ("train_on_eos", "`turn` is the default (all), `last` and `none` are its values"),
        ("rl", "unknown option --rl: sftkit does supervised fine-tuning only"),
        (
            "message_field_training",
            "a message with `training: false` (or `train`, `trainable`, `loss`) carries no loss",
        ),
        ("message_field_training_detail", "messages with `train_detail` or `training_detail` need no key"),
    ],
)
def test_values_that_differ_and_keys_without_a_counterpart_are_explained(name: str, says: str) -> None:
    assert says in of_command("train", f"--{name}", "true", "--output_dir", "out")


@pytest.mark.parametrize("command", ["preprocess", "inspect-shards"])
def test_keys_of_train_are_named_as_such(command: str) -> None:
    message = of_command(command, "--learning_rate", "1", "--use_peft", "--num_epochs", "2", "--output_dir", "x")
    assert "unknown option --learning_rate: it is a key of `sftkit train`" in message
    assert "unknown option --use_peft: it is a key of `sftkit train`" in message
    assert "(did you mean 'num_train_epochs', a key of `sftkit train`?)" in message


def test_keys_of_the_other_commands_are_named_as_such() -> None:
    message = of_command("train", "--keep_staging", "--audit", "--output_dir", "x")
    assert "unknown option --keep_staging: it is a key of `sftkit preprocess`" in message
    assert "unknown option --audit: it is a key of `sftkit inspect-shards`" in message
    message = of_command("inspect-shards", "--output_dir", "x")
    assert message == "unknown option --output_dir: it is a key of `sftkit preprocess` and `sftkit train`"


def test_keys_at_the_top_level_are_named_as_such() -> None:
    message = of_command("preprocess", "dataprocessor.max_seq_length=5", "--output_dir", "out")
    assert message == "unknown option dataprocessor.max_seq_length: it is a key at the top level, not of dataprocessor"


def test_a_similar_argument_of_a_handler_comes_first(tmp_path: Path) -> None:
    handler = "{name: skip_large_text, arguments: {fn_kwargs: {column_name: a, max_len: 5, model: x}}}"
    [dataset] = load_config(
        PreprocessConfig,
        [f"datasets=[{{name: a, data_paths: [b], data_handlers: [{handler}]}}]", "--output_dir=out"],
    ).datasets
    with pytest.raises(ConfigError) as caught:
        build_handlers(dataset, 0)
    place = "datasets[0].data_handlers[0].skip_large_text"
    assert caught.value.problems[0] == f"unknown key '{place}.max_len' (did you mean 'max_length'?)"


def test_the_split_of_axolotl_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("datasets:\n- {name: a, data_paths: [b], split: train}\n")
    message = of_command("preprocess", "--data_config_path", str(path), "--output_dir", "out")
    assert message == (
        "datasets[0].split must hold keys and values, not 'train'; for the name of the split to read, set "
        "dataset_split_name"
    )
    assert set(FOREIGN_VALUES) == {"datasets.split"}


def test_all_values_of_an_unknown_option_are_skipped() -> None:
    message = of_command("preprocess", "--dataset_mixer_list", "a/b", "0.5", "c/d", "1.0", "--output_dir", "x")
    assert len(message.splitlines()) == 1


def own_keys(*schemas: type[Any]) -> set[str]:
    return {field.name for schema in schemas for field in fields(schema)}


TOP_LEVEL = own_keys(*COMMANDS.values()) | set(extra_keys()) | set(KEY_ALIASES[""]) | set(PATH_ALIASES)
OF_DATASETS = own_keys(DatasetConfig) | set(KEY_ALIASES["datasets"])


def test_no_key_of_the_program_is_taken_for_one_of_another_tool() -> None:
    assert not TOP_LEVEL & {key.name for key in TOP_LEVEL_KEYS}
    assert not OF_DATASETS & {key.name for key in DATASET_KEYS}


@pytest.mark.parametrize("table", [TOP_LEVEL_KEYS, DATASET_KEYS], ids=["top level", "datasets"])
def test_the_tables_have_every_name_once_and_suggest_keys_that_exist(table: tuple[ForeignKey, ...]) -> None:
    assert [name for name, count in Counter(key.name for key in table).items() if count > 1] == []
    known = TOP_LEVEL | {f"datasets[0].{name}" for name in OF_DATASETS}
    known |= {f"dataprocessor.{name}" for name in own_keys(ProcessorConfig)}
    known |= OF_DATASETS if table is DATASET_KEYS else set()
    assert [key for key in table if key.key and key.key not in known] == []
    assert [key for key in table if not key.key and not key.note] == []
    assert {tool for key in table for tool in key.tools} <= set(TOOLS)
    assert set(extra_keys()) >= USUAL_TRAINING_ARGUMENTS
