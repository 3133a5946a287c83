"""A run that is killed, at whatever moment, goes on with the same command and sees the same losses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sftkit.errors import TrainingError
from sftkit.training.checkpoints.resume import find_resume_point
from sftkit.training.checkpoints.seal import (
    SEAL_NAME,
    RunState,
    begin_checkpoint,
    delete_old_checkpoints,
    read_seal,
    seal_checkpoint,
)
from sftkit.training.data.work_counts import WorkCounts

from .material import events

KILLS = 10

# Imports once, then trains in forked processes, which start at once; the parent never computes, so forking is safe.
DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
from sftkit.config.loading import load_config
from sftkit.config.commands import TrainConfig
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.run import train

kills, logs, argv = int(sys.argv[1]), Path(sys.argv[2], "training_logs.jsonl"), sys.argv[3:]

def steps():
    return logs.read_text().count('"loss"') if logs.exists() else 0

def begin():
    child = os.fork()
    if child:
        return child
    try:
        config = load_config(TrainConfig, argv, extra_keys=extra_keys())
        train(config, make_training_arguments(config), open_shards(config.training_data_path[0]))
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

chance = random.Random(1)
for kill in range(kills):
    child, least = begin(), steps() + chance.choice((0, 1, 2))
    while steps() < least and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    time.sleep(chance.random() * 0.03)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "it ended before it was killed"
assert os.waitstatus_to_exitcode(os.waitpid(begin(), 0)[1]) == 0
"""


def driven(kills: int, output: Path, *argv: str) -> str:
    """Train with so many kills on the way; what was written to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(kills), str(output), f"--output_dir={output}", *argv],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def losses(output: Path) -> list[tuple[int, float]]:
    return [(event["step"], event["loss"]) for event in events(output) if "loss" in event]


@pytest.fixture
def dropping_model(tmp_path: Path, model_dir: Path) -> Path:
    """A model that draws random numbers in training."""
    place = shutil.copytree(model_dir, tmp_path / "dropping")
    settings = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**settings, "attention_dropout": 0.1}))
    return place


def test_a_run_killed_ten_times_sees_the_losses_of_one_that_was_not(
    tmp_path: Path, dropping_model: Path, shard_dir: Path
) -> None:
    argv = (
        f"--model_name_or_path={dropping_model}", f"--training_data_path={shard_dir}", "--use_cpu=true",
        "--num_train_epochs=24", "--per_device_train_batch_size=5", "--gradient_accumulation_steps=2",
        "--learning_rate=1e-2", "--logging_steps=2", "--save_steps=1", "--save_total_limit=2", "--log_level=error",
    )  # fmt: skip
    driven(0, tmp_path / "whole", *argv)
    driven(KILLS, tmp_path / "killed", *argv)
    assert [step for step, _ in losses(tmp_path / "whole")] == list(range(2, 73, 2))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    whole = [path.name for path in (tmp_path / "killed").glob("checkpoint-*") if read_seal(path)]
    assert sorted(whole) == ["checkpoint-71", "checkpoint-72"]


IDENTITY = {"learning_rate": 0.1, "data": "abc"}
PROGRESS = RunState(1.5, 4, 20.0, WorkCounts(10, 5, 12, 100, 5))


def checkpoint(folder: Path, step: int, identity: dict[str, Any] | None = IDENTITY, *, resumable: bool = True) -> Path:
    place = folder / f"checkpoint-{step}"
    (place / "sub").mkdir(parents=True)
    (place / "trainer_state.json").write_text("{}")
    (place / "sub" / "weights").write_bytes(b"12345")
    if identity is not None:
        seal_checkpoint(place, identity, PROGRESS, resumable=resumable)
    return place


class Arguments:
    """What `find_resume_point` looks at of TrainingArguments."""

    def __init__(self, output_dir: Path, resume_from_checkpoint: str | bool | None) -> None:
        self.output_dir = str(output_dir)
        self.resume_from_checkpoint = resume_from_checkpoint


def resumed(folder: Path, asked: str | bool | None) -> str | None:
    found = find_resume_point(Arguments(folder, asked), IDENTITY)  # type: ignore[arg-type]
    return None if found is None else found.checkpoint.name


def test_a_checkpoint_is_whole_once_it_is_sealed_and_as_long_as_all_its_files_are(tmp_path: Path) -> None:
    place = checkpoint(tmp_path, 4)
    sealed = read_seal(place)
    assert sealed is not None
    assert (sealed.identity, sealed.state) == (IDENTITY, PROGRESS)
    assert sealed.files == {"sub/weights": 5, "trainer_state.json": 2}
    assert read_seal(checkpoint(tmp_path, 5, None)) is None
    (place / "sub" / "weights").write_bytes(b"123")
    assert read_seal(place) is None
    (place / "sub" / "weights").unlink()
    assert read_seal(place) is None
    broken = checkpoint(tmp_path, 6)
    (broken / SEAL_NAME).write_text((broken / SEAL_NAME).read_text()[:-20])
    assert read_seal(broken) is None


def test_the_same_command_goes_on_from_the_newest_whole_checkpoint_of_its_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert resumed(tmp_path / "nothing", None) is None
    checkpoint(tmp_path, 30)
    checkpoint(tmp_path, 20)  # of a run that was started anew after the one that came to 30
    checkpoint(tmp_path, 40, None)
    checkpoint(tmp_path, 50, resumable=False)
    assert resumed(tmp_path, None) == "checkpoint-20"
    assert "goes on from" in caplog.text
    assert resumed(tmp_path, False) is None
    assert resumed(tmp_path, "false") is None
    checkpoint(tmp_path, 25, {**IDENTITY, "learning_rate": 0.2})
    assert resumed(tmp_path, None) == "checkpoint-20"
    caplog.clear()
    assert resumed(tmp_path, True) == "checkpoint-25"
    assert "learning_rate: 0.2, now 0.1" in caplog.text


def test_another_runs_checkpoints_are_not_gone_on_from_unasked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint(tmp_path, 7, {**IDENTITY, "data": "other"})
    assert resumed(tmp_path, None) is None
    assert "checkpoint-7 is of another run (data: other, now abc): this run starts anew" in caplog.text


def test_a_path_is_gone_on_from_unless_it_is_broken(tmp_path: Path) -> None:
    whole, foreign = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2, None)
    assert resumed(tmp_path / "elsewhere", str(whole)) == "checkpoint-1"
    assert resumed(tmp_path / "elsewhere", str(foreign)) == "checkpoint-2"
    (whole / "sub" / "weights").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"checkpoint-1 is not whole"):
        resumed(tmp_path, str(whole))


def test_older_checkpoints_of_the_run_are_deleted_and_no_others(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 9, {**IDENTITY, "data": "other"})
    begin_checkpoint(tmp_path / "checkpoint-5")  # and then a kill
    delete_old_checkpoints(tmp_path, None, IDENTITY, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in (1, 2, 3, 4, 9)]
    delete_old_checkpoints(tmp_path, 2, IDENTITY, str(tmp_path / "checkpoint-1"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in (1, 3, 4, 9)]


def test_a_checkpoint_is_whole_no_more_once_it_is_written_again(tmp_path: Path) -> None:
    place = checkpoint(tmp_path, 4)
    begin_checkpoint(place)
    (place / "trainer_state.json").write_text("{}")
    assert read_seal(place) is None
    seal_checkpoint(place, IDENTITY, PROGRESS, resumable=True)
    assert read_seal(place) is not None
    assert sorted(path.name for path in place.iterdir()) == [SEAL_NAME, "trainer_state.json"]


def test_a_checkpoint_without_the_optimizer_is_refused_by_name(tmp_path: Path) -> None:
    place = checkpoint(tmp_path, 4, resumable=False)
    with pytest.raises(TrainingError, match=r"checkpoint-4 holds the model alone \(save_only_model=true\)"):
        resumed(tmp_path, str(place))
    assert resumed(tmp_path, None) is resumed(tmp_path, True) is None
