"""Validation of a whole config before any data is read."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sftkit.config.commands import PreprocessConfig, TrainConfig
from sftkit.config.fields import keys_where
from sftkit.config.schema.data_config import DatasetConfig, ProcessorConfig, SplitConfig
from sftkit.config.validation import validate_config
from sftkit.errors import ConfigError
from sftkit.preprocessing.training_shards import check_training_data


def config(*datasets: DatasetConfig, **changes: Any) -> PreprocessConfig:
    return dataclasses.replace(PreprocessConfig(output_dir="o", datasets=datasets), **changes)


def dataset(name: str = "a", **changes: Any) -> DatasetConfig:
    return dataclasses.replace(DatasetConfig(name=name, data_paths=("p",)), **changes)


def problems(config: PreprocessConfig) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        validate_config(config)
    return error.value.problems


@pytest.mark.parametrize("key", ["tokens_per_device_batch", "shuffle_window", "sample_steps", "lora_r"])
def test_training_rejects_a_count_of_zero(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be 1 or more, not 0"):
        check_training_data(TrainConfig(**{"output_dir": "o", "training_data_path": ("p",), key: 0}))


@pytest.mark.parametrize("schema", [PreprocessConfig, TrainConfig])
def test_every_declared_minimum_and_maximum_is_enforced(schema: type[Any]) -> None:
    for key in keys_where(schema, lambda info: info.minimum is not None):
        with pytest.raises(ConfigError, match=rf"{key} must be .*, not -1"):
            validate_config(schema(**{"output_dir": "o", key: -1}))
    for key in keys_where(schema, lambda info: info.maximum is not None):
        with pytest.raises(ConfigError, match=rf"{key} must be between .*, not 2"):
            validate_config(schema(**{"output_dir": "o", key: 2}))


def test_a_number_that_does_not_fit_into_64_bits_is_rejected() -> None:
    assert problems(config(dataset(), max_row_bytes=10**19, unit_size=2**63)) == (
        "max_row_bytes must be at most 9223372036854775807, not 10000000000000000000",
        "unit_size must be at most 9223372036854775807, not 9223372036854775808",
    )
    validate_config(config(dataset(), max_row_bytes=2**63 - 1))


def test_paths_and_special_tokens_must_not_be_empty() -> None:
    processor = ProcessorConfig(chat_template_base64="")
    changes = {"output_dir": "", "dataprocessor": processor, "add_special_tokens": ("<a>", "")}
    assert problems(config(dataset(data_paths=("p", "")), **changes)) == (
        "dataprocessor.chat_template_base64 is empty; give a value, or leave it out",
        "datasets[0].data_paths[1] is empty; give a value, or leave it out",
        "add_special_tokens[1] is empty; give a value, or leave it out",
        "output_dir is empty; give a value, or leave it out",
    )


@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.1), (0.7, 0.3), (1.0,), (0.1,) * 10, (1 / 3, 1 / 3, 1 / 3)])
def test_weights_that_sum_to_one_within_rounding_are_accepted(weights: tuple[float, ...]) -> None:
    validate_config(config(*(dataset(str(i), sampling=w) for i, w in enumerate(weights))))


def test_weights_that_do_not_sum_to_one_are_rejected() -> None:
    [problem] = problems(config(dataset("a", sampling=0.7), dataset("b", sampling=0.2)))
    assert problem == "datasets: the sampling weights must sum to 1, not 0.9"


def test_weights_for_only_some_data_sets_are_rejected() -> None:
    [problem] = problems(config(dataset("a", sampling=1.0), dataset("b")))
    assert "sampling is missing for b" in problem


def test_a_validation_only_data_set_needs_no_weight() -> None:
    held_out = dataset("v", split=SplitConfig(validation=1.0))
    validate_config(config(dataset("a", sampling=0.5), dataset("b", sampling=0.5), held_out))


def test_storage_options_of_a_protocol_must_be_a_mapping() -> None:
    wrong = {"s3": "secret", "client_kwargs": "anything"}
    assert [*problems(config(dataset(storage_options=wrong), storage_options=wrong))] == [
        "storage_options.s3 must be a mapping of options, not str",
        "datasets[0].storage_options.s3 must be a mapping of options, not str",
    ]


def test_streaming_is_rejected_with_the_reason() -> None:
    [problem] = problems(config(dataset(), dataprocessor=ProcessorConfig(streaming=True)))
    assert problem.startswith("streaming: true cannot be used to preprocess: shards are split, mixed and balanced")


def test_two_chat_templates_are_rejected() -> None:
    both = ProcessorConfig(chat_template="x", chat_template_base64="eA==")
    [problem] = problems(config(dataset(), dataprocessor=both))
    assert problem == "dataprocessor has chat_template and chat_template_base64; give one chat template"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_seq_length": 0}, "max_seq_length must be 1 or more, not 0"),
        ({"num_dataset_shards": -3}, "num_dataset_shards must be 1 or more, not -3"),
        ({"max_bad_rows": -1}, "max_bad_rows must be 0 or more, not -1"),
        ({"max_bad_rows": -0.25}, "max_bad_rows must be 0 or more, not -0.25"),
        ({"max_bad_rows": 1.5}, "max_bad_rows must be a whole number of rows, or a fraction below 1, not 1.5"),
        ({"instruction_template": "x"}, "instruction_template is given without response_template"),
        ({"response_template": ""}, "response_template is empty"),
        ({"training_data_path": ("x",)}, "give either a data config (`datasets`) or training_data_path, not both"),
        ({"dataset_conversation_field": "m"}, "dataset_conversation_field cannot be combined with `datasets`"),
    ],
)
def test_the_message_about_an_invalid_setting_names_the_key(changes: dict[str, Any], expected: str) -> None:
    assert any(problem.startswith(expected) for problem in problems(config(dataset(), **changes)))


def test_a_config_without_data_is_rejected() -> None:
    assert problems(config()) == ("no data: give data_config_path, `datasets`, or training_data_path",)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (
            SplitConfig(train=0.9, validation=0.2),
            "datasets[0].split: train and validation sum to 1.1, which is more than 1",
        ),
        (SplitConfig(train=1.5), "datasets[0].split.train must be between 0 and 1, not 1.5"),
        (
            SplitConfig(train=0.0, validation=0.0),
            "datasets[0].split selects no rows; set train or validation to more than 0",
        ),
    ],
)
def test_impossible_split_fractions_are_rejected(split: SplitConfig, expected: str) -> None:
    assert expected in problems(config(dataset(split=split)))


def test_two_data_sets_with_the_same_name_are_rejected() -> None:
    assert problems(config(dataset("a"), dataset("a"))) == (
        "datasets: the name 'a' is used 2 times; names must be unique",
    )
