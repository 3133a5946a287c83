"""Trackers and files of a training run contain no token, and nothing that a config took from the environment."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import TrainerState, TrainingArguments

from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.arguments.public_values import PublicValues
from sftkit.training.checkpoints.public_state import leave_out_path
from sftkit.training.run import train

from .material import events

SECRET = "SECRETx9"
TOKEN = "hf_" + "q7" * 8  # no real one


@pytest.fixture
def config_file(tmp_path: Path, model_dir: Path, shard_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in which everything that can come from the environment does, and which has a token."""
    shutil.copytree(model_dir, tmp_path / SECRET / "model")
    monkeypatch.setenv("PLANTED", str(tmp_path / SECRET))
    monkeypatch.setenv("PLANTED_NAME", f"name-{SECRET}")
    path = tmp_path / "own.yaml"
    settings = {
        "model_name_or_path": "${oc.env:PLANTED}/model",
        "output_dir": "${oc.env:PLANTED}/out",
        "training_data_path": str(shard_dir),
        "experiment": "run-${oc.env:PLANTED_NAME}",
        "freeze": ["*q_proj*"],
        "hub_token": TOKEN,
        "hub_model_id": "me/${oc.env:PLANTED_NAME}",
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.5},
        "accelerator_config": {"split_batches": False},
        "metric_for_best_model": "loss",
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "report_to": "tensorboard",
        "use_cpu": True,
        "save_steps": 2,
        "eval_steps": 2,
        "max_steps": 4,
        "logging_steps": 1,
        "learning_rate": 0.01,
        "log_level": "error",
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def load(config_file: Path, *words: str) -> TrainConfig:
    return load_config(TrainConfig, ["--config", str(config_file), *words], extra_keys=extra_keys())


def run(config: TrainConfig) -> list[tuple[int, float]]:
    """Train, and return the losses."""
    train(config, make_training_arguments(config), open_shards(config.training_data_path[0]))
    return [(event["step"], event["loss"]) for event in events(Path(config.output_dir)) if "loss" in event]


def assert_clean(folder: Path) -> None:
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for word in (SECRET, TOKEN):
            assert word.encode() not in content, path
            assert word not in path.relative_to(folder).as_posix()


@pytest.mark.slow
def test_no_byte_of_an_output_directory_has_a_secret_and_the_run_resumes(config_file: Path) -> None:
    config = load(config_file)
    whole = run(config)
    output = Path(config.output_dir)
    assert [*output.glob("runs/*/events*")]
    assert (output / "checkpoint-2" / "training_args.bin").exists()
    assert_clean(output)
    saved = torch.load(output / "training_args.bin", weights_only=False)
    assert type(saved) is TrainingArguments
    assert (saved.output_dir, saved.hub_token) == ("${oc.env:PLANTED}/out", None)
    shutil.rmtree(output / "checkpoint-4")
    assert run(config) == whole
    assert json.loads((output / "checkpoint-4" / "trainer_state.json").read_text())["best_global_step"]
    assert_clean(output)


@pytest.mark.slow
def test_adapters_do_not_name_a_model_of_the_environment(config_file: Path) -> None:
    words = ("--use_peft", "--freeze", "[]", "--merge_lora", "--max_steps=2")
    config = load(config_file, *words)
    run(config)
    output = Path(config.output_dir)
    assert json.loads((output / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        "${oc.env:PLANTED}/model"
    )
    assert_clean(output)


def test_another_value_of_the_environment_is_another_run(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = PublicValues.of(load(config_file)).identifying("name-" + SECRET)
    monkeypatch.setenv("PLANTED_NAME", "name-of-another")
    second = PublicValues.of(load(config_file)).identifying("name-of-another")
    assert first != second
    assert all(each.startswith('"${oc.env:PLANTED_NAME}" ***') for each in (first, second))
    assert PublicValues.of(load(config_file)).identifying(["a", 1]) == ["a", 1]


def test_what_trackers_call_has_no_secret_and_the_run_keeps_its_values(config_file: Path) -> None:
    config = load(config_file, "--deepspeed", json.dumps({"comet": {"api_key": SECRET}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sftkit.training.arguments.build_arguments.check_combinations", lambda *_: None)
        patch.setattr(TrainingArguments, "__post_init__", lambda _: None)  # which needs DeepSpeed
        patch.setattr(TrainingArguments, "mixed_precision", "no", raising=False)
        arguments = make_training_arguments(config)
    for kept in (arguments, copy.deepcopy(arguments)):
        assert (kept.hub_token, kept.output_dir) == (TOKEN, config.output_dir)
        assert kept.deepspeed["comet"]["api_key"] == SECRET
        assert kept.run_name == "run-${oc.env:PLANTED_NAME}"
        shown = [str(kept.to_dict()), pickle.dumps(kept).decode("latin-1")]
        assert all(SECRET not in each and TOKEN not in each for each in shown)


@pytest.mark.parametrize("words", [("--hub_token", TOKEN), (f"--hub_token={TOKEN}",), ("--push_to_hub_token", SECRET)])
def test_trackers_find_no_secret_on_the_command_line(
    config_file: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["sftkit", "train", *words, "--storage_options.s3.secret", SECRET, "--max_steps", "3"]
    monkeypatch.setattr(sys, "argv", given)
    with PublicValues.of(load(config_file, *words)).command_line():
        assert not any(word in each for each in sys.argv for word in (SECRET, TOKEN))
        assert sys.argv[-2:] == ["--max_steps", "3"]
    assert sys.argv == given


def test_a_state_keeps_its_best_checkpoint_without_its_path(tmp_path: Path) -> None:
    public = PublicValues({str(tmp_path): "${oc.env:OUT}"})
    best = tmp_path / "checkpoint-3"
    best.mkdir()
    state = TrainerState(best_global_step=3, best_model_checkpoint=None)
    leave_out_path(state, str(tmp_path), public)
    assert state.best_model_checkpoint == str(best)
    state.save_to_json(str(tmp_path / "state.json"))
    assert state.best_model_checkpoint == str(best)
    assert str(tmp_path) not in (tmp_path / "state.json").read_text()
