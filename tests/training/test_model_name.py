"""What `train` says of a model that cannot be found, before torch is imported or data is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import sftkit
from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, TrainingError
from sftkit.training.models.model_name import adapter_error, check_model_name


def refusal(name: str | None) -> str:
    with pytest.raises(ConfigError if name is None else TrainingError) as raised:
        check_model_name(replace(TrainConfig(output_dir="out"), model_name_or_path=name))
    return str(raised.value)


def test_an_adapter_of_the_hub_names_the_keys_to_set() -> None:
    assert str(adapter_error("org/adapter", "org/base")) == (
        "model_name_or_path: 'org/adapter' is a LoRA adapter of the model 'org/base', not a model; set "
        "model_name_or_path=org/base and adapter_name_or_path=org/adapter"
    )


def test_a_directory_without_a_model_names_one_further_in(tmp_path: Path) -> None:
    said = f"model_name_or_path: model '{tmp_path}' cannot be loaded: the directory has no config.json, so it holds no"
    assert refusal(str(tmp_path)) == f"{said} model; correct the path"
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10" / "config.json").write_text("{}")
    assert refusal(str(tmp_path)) == f"{said} model; correct the path, such as to {tmp_path}/checkpoint-10"


def test_no_model_is_named() -> None:
    assert refusal(None) == "model_name_or_path is missing; set it to the model to train"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"model_name_or_path": "./nowhere"}, "model_name_or_path: model './nowhere' cannot be loaded: no such dir"),
        (
            {"model_name_or_path": "sample:model", "tokenizer_name_or_path": "./nowhere"},
            "tokenizer_name_or_path: tokenizer './nowhere' cannot be loaded: no such directory",
        ),
    ],
)
def test_missing_directories_are_found_before_the_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sftkit.SftkitError, match=sentence):
        sftkit.train(training_data_path="no-data.jsonl", output_dir="out", **keys)
