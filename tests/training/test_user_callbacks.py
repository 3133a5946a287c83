"""Callbacks of the user, by import path."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftkit.api.use_cases import train
from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.errors import ConfigError, TrainingError
from sftkit.training.callbacks.user_callbacks import find_user_callbacks

from .material import logged
from .test_run import run

MODULE = """
from transformers import TrainerCallback

STEPS = []

class Record(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        STEPS.append(state.global_step)
        if state.global_step == 2:
            control.should_training_stop = True

class Broken(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        return {}["missing"]

class Needs(TrainerCallback):
    def __init__(self, where):
        pass

def function():
    pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a module of the user."""
    (tmp_path / "own_callbacks.py").write_text(MODULE)
    (tmp_path / "broken_callbacks.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_callbacks", raising=False)
    return tmp_path


def test_a_callback_follows_and_stops_the_run(here: Path, model_dir: Path, shard_dir: Path) -> None:
    report = run(model_dir, shard_dir, here / "out", "--max_steps=5", "--user_callbacks=own_callbacks:Record")
    import own_callbacks  # type: ignore[import-not-found]  # written by the fixture

    assert own_callbacks.STEPS == [1, 2]
    assert (report.steps, len(logged(here / "out", "loss"))) == (2, 2)


def test_a_callback_that_fails_is_named_with_the_line(here: Path, model_dir: Path, shard_dir: Path) -> None:
    message = (
        r"user_callbacks: on_step_end of own_callbacks:Broken failed \(.*own_callbacks\.py:14\): .*KeyError.*missing"
    )
    with pytest.raises(TrainingError, match=message):
        run(model_dir, shard_dir, here / "out", "--max_steps=2", "--user_callbacks=own_callbacks:Broken")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own_callbacks", "'own_callbacks' must be an import path such as package.module:Class"),
        ("own_callbacks:Missing", "the module own_callbacks has no class 'Missing'"),
        ("own_callbacks:function", r"own_callbacks:function must be a subclass of transformers\.trainer_callback"),
        ("own_callbacks:Needs", "own_callbacks:Needs must take no arguments, but needs where"),
        ("no_such_module_here:A", "cannot import no_such_module_here of 'no_such_module_here:A': No module named"),
        ("broken_callbacks:A", "cannot import broken_callbacks of .* it raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_callback_is_refused(here: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"user_callbacks: {message}"):
        find_user_callbacks([path])


def test_errors_come_before_data_and_model(here: Path) -> None:
    with pytest.raises(ConfigError, match="has no class 'Missing'"):
        train(
            training_data_path="sample:pairs.jsonl", model_name_or_path="sample:model", output_dir=str(here / "out"),
            use_cpu=True, user_callbacks=["own_callbacks:Missing"], cache_dir=str(here / "cache"),
        )  # fmt: skip
    assert not (here / "cache").exists()


def test_a_data_config_cannot_name_callbacks(here: Path) -> None:
    (here / "data.yaml").write_text("user_callbacks: [own_callbacks:Record]\ndatasets: []\n")
    with pytest.raises(ConfigError, match="user_callbacks"):
        load_config(TrainConfig, ["--data_config_path=data.yaml", "--output_dir=out"])
