"""A run that is killed at any moment resumes with the same command and sees the losses of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sftkit.config.commands import TrainConfig
from sftkit.config.loading import load_config
from sftkit.errors import TrainingError
from sftkit.shards.reading import open_shards
from sftkit.storage.training_files import SEAL_NAME, UNFINISHED_NAME
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.callbacks import checkpoint_callback
from sftkit.training.checkpoints.resume import find_resume_point
from sftkit.training.checkpoints.seal import (
    RunState,
    begin_checkpoint,
    delete_old_checkpoints,
    next_attempt,
    read_seal,
    seal_checkpoint,
)
from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.run import train

from .material import events

KILLS = 10

# Imports once, then trains in forked processes. The parent never computes, so that forking is safe. A process kills
# itself before a randomly chosen change to its output directory, so that the moments of the kills do not depend on the
# speed of the machine. First it cuts the file that it was writing in half.
DRIVER = f"""
import os, random, signal, sys
from pathlib import Path
from sftkit.config.loading import load_config
from sftkit.config.commands import TrainConfig
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.run import train

kills, folder, argv = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir")
changes = 0

def watch(output, fatal):
    def hook(event, arguments):
        global changes
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if not (writes or event in CHANGES) or not str(arguments[0]).startswith(f"{{output}}/"):
            return
        changes += 1
        if changes == fatal:
            for unfinished in output.glob("checkpoint-*/{UNFINISHED_NAME}"):
                newest = max(unfinished.parent.iterdir(), key=lambda path: path.stat().st_mtime_ns)
                os.truncate(newest, newest.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def run(output, fatal=0):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        watch(output, fatal)
        config = load_config(TrainConfig, [*argv, f"--output_dir={{output}}"], extra_keys=extra_keys())
        train(config, make_training_arguments(config), open_shards(config.training_data_path[0]))
        (folder / "changes").write_text(str(changes))
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

assert run(folder / "whole") == 0
most = int((folder / "changes").read_text()) // (kills + 2)  # changes before a kill: the run cannot end before the last
chance = random.Random(1)
for kill in range(kills):
    assert run(folder / "killed", chance.randint(1, most)) == -signal.SIGKILL
assert run(folder / "killed") == 0
"""


def losses(output: Path) -> list[tuple[int, float]]:
    return [(event["step"], event["loss"]) for event in events(output) if "loss" in event]


def assert_same_weights(one: Path, other: Path) -> None:
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


@pytest.fixture
def argv(tmp_path: Path, model_dir: Path, shard_dir: Path) -> list[str]:
    """A run with dropout, so that it draws random numbers; all options except its length and `output_dir`."""
    model = shutil.copytree(model_dir, tmp_path / "model")
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, "attention_dropout": 0.1}))
    return [
        f"--model_name_or_path={model}", f"--training_data_path={shard_dir}", "--use_cpu=true",
        "--per_device_train_batch_size=5", "--gradient_accumulation_steps=2", "--learning_rate=1e-2",
        "--logging_steps=2", "--save_steps=1", "--save_total_limit=2", "--log_level=error",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_killed_ten_times_sees_the_losses_of_an_uninterrupted_run(tmp_path: Path, argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(KILLS), str(tmp_path), *argv, "--num_train_epochs=16"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [step for step, _ in losses(tmp_path / "whole")] == list(range(2, 49, 2))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert_same_weights(tmp_path / "killed", tmp_path / "whole")
    complete = [path.name for path in (tmp_path / "killed").glob("checkpoint-*") if read_seal(path)]
    assert sorted(complete) == ["checkpoint-47", "checkpoint-48"]


@pytest.fixture
def seal_until_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Interrupts runs when they are about to seal the checkpoint of a step."""

    def set_step(last: int) -> None:
        def seal(folder: Path, *arguments: Any, **settings: Any) -> None:
            if folder.name == f"checkpoint-{last}":
                raise KeyboardInterrupt
            seal_checkpoint(folder, *arguments, **settings)

        monkeypatch.setattr(checkpoint_callback, "seal_checkpoint", seal)

    return set_step


def run(argv: list[str], output: Path, *options: str) -> None:
    argv = [*argv, "--max_steps=5", f"--output_dir={output}", *options]
    config = load_config(TrainConfig, argv, extra_keys=extra_keys())
    train(config, make_training_arguments(config), open_shards(config.training_data_path[0]))


def test_a_run_interrupted_before_it_sealed_a_checkpoint_sees_the_losses_of_an_uninterrupted_run(
    tmp_path: Path, argv: list[str], seal_until_step: Callable[[int], None]
) -> None:
    run(argv, tmp_path / "whole")
    seal_until_step(3)
    with pytest.raises(KeyboardInterrupt):
        run(argv, tmp_path / "interrupted")
    seal_until_step(0)
    assert read_seal(tmp_path / "interrupted" / "checkpoint-2")
    assert not read_seal(tmp_path / "interrupted" / "checkpoint-3")
    run(argv, tmp_path / "interrupted")
    assert [step for step, _ in losses(tmp_path / "whole")] == [2, 4]
    assert losses(tmp_path / "interrupted") == losses(tmp_path / "whole")
    assert_same_weights(tmp_path / "interrupted", tmp_path / "whole")


def test_a_run_started_from_the_beginning_replaces_the_checkpoints_of_the_attempt_before(
    tmp_path: Path, argv: list[str], seal_until_step: Callable[[int], None]
) -> None:
    run(argv, tmp_path, "--save_total_limit=1")
    seal_until_step(4)
    with pytest.raises(KeyboardInterrupt):
        run(argv, tmp_path, "--save_total_limit=1", "--resume_from_checkpoint=false")
    assert [path.name for path in tmp_path.glob("checkpoint-*") if read_seal(path)] == ["checkpoint-3"]


IDENTITY = {"learning_rate": 0.1, "data": "abc"}
STATE = RunState(1.5, 4, 20.0, WorkCounts(10, 5, 12, 100, 5))


def checkpoint(
    folder: Path,
    step: int,
    identity: dict[str, Any] | None = IDENTITY,
    *,
    resumable: bool = True,
    attempt: int = 0,
) -> Path:
    place = folder / f"checkpoint-{step}"
    (place / "sub").mkdir(parents=True)
    (place / "trainer_state.json").write_text("{}")
    (place / "sub" / "weights").write_bytes(b"12345")
    if identity is not None:
        seal_checkpoint(place, identity, STATE, resumable=resumable, attempt=attempt)
    return place


class Arguments:
    """The attributes of TrainingArguments that `find_resume_point` reads."""

    def __init__(self, output_dir: Path, resume_from_checkpoint: str | bool | None) -> None:
        self.output_dir = str(output_dir)
        self.resume_from_checkpoint = resume_from_checkpoint


def resumed(folder: Path, resume_from: str | bool | None) -> str | None:
    """The name of the checkpoint that a run resumes from."""
    found = find_resume_point(Arguments(folder, resume_from), IDENTITY)  # type: ignore[arg-type]
    return None if found is None else found.checkpoint.name


def test_a_checkpoint_is_complete_if_it_is_sealed_and_every_file_has_its_size(tmp_path: Path) -> None:
    place = checkpoint(tmp_path, 4)
    sealed = read_seal(place)
    assert sealed is not None
    assert (sealed.identity, sealed.state) == (IDENTITY, STATE)
    assert sealed.files == {"sub/weights": 5, "trainer_state.json": 2}
    assert read_seal(checkpoint(tmp_path, 5, None)) is None
    (place / "sub" / "weights").write_bytes(b"123")
    assert read_seal(place) is None
    (place / "sub" / "weights").unlink()
    assert read_seal(place) is None
    broken = checkpoint(tmp_path, 6)
    (broken / SEAL_NAME).write_text((broken / SEAL_NAME).read_text()[:-20])
    assert read_seal(broken) is None


def test_the_same_command_resumes_from_the_newest_complete_checkpoint_of_its_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert resumed(tmp_path / "nothing", None) is None
    checkpoint(tmp_path, 30)
    checkpoint(tmp_path, 20, attempt=1)  # started from the beginning after step 30 had been reached
    checkpoint(tmp_path, 40, None)
    checkpoint(tmp_path, 50, resumable=False)
    assert resumed(tmp_path, None) == "checkpoint-20"
    assert "the run resumes from" in caplog.text
    assert resumed(tmp_path, False) is None
    assert resumed(tmp_path, "false") is None
    checkpoint(tmp_path, 25, {**IDENTITY, "learning_rate": 0.2}, attempt=2)
    assert resumed(tmp_path, None) == "checkpoint-20"
    caplog.clear()
    assert resumed(tmp_path, True) == "checkpoint-25"
    assert "learning_rate: 0.2, now 0.1" in caplog.text


def test_a_copy_under_the_name_of_a_later_step_is_not_newer(tmp_path: Path) -> None:
    for step in (2, 9, 10):
        checkpoint(tmp_path, step)
    shutil.copytree(tmp_path / "checkpoint-2", tmp_path / "checkpoint-900")
    assert resumed(tmp_path, None) == resumed(tmp_path, True) == "checkpoint-10"
    delete_old_checkpoints(tmp_path, 2, IDENTITY, None)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-9", "checkpoint-10"}


@pytest.mark.parametrize("seed", range(4))
def test_no_clock_changes_which_checkpoint_is_newest(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    steps = chance.sample(range(1, 200), 5)
    attempts = {step: chance.randrange(3) for step in steps}
    for step in steps:
        place = checkpoint(tmp_path, step, attempt=attempts[step])
        for path in (*place.rglob("*"), place):
            day = chance.randrange(-2, 20_000)
            os.utime(path, (86_400 * day, 86_400 * day))
    newest_first = sorted(steps, key=lambda step: (attempts[step], step), reverse=True)
    assert resumed(tmp_path, None) == resumed(tmp_path, True) == f"checkpoint-{newest_first[0]}"
    delete_old_checkpoints(tmp_path, 2, IDENTITY, None)
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in newest_first[:2]}


@pytest.mark.parametrize("order", [(2, 8, 10), (10, 8, 2), (8, 10, 2)])
def test_the_step_decides_which_checkpoint_is_newest_whatever_the_times_say(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    for day, step in enumerate(order):
        place = checkpoint(tmp_path, step)
        for path in (*place.rglob("*"), place):
            os.utime(path, (86_400 * day, 86_400 * day))
    assert resumed(tmp_path, None) == resumed(tmp_path, True) == "checkpoint-10"
    delete_old_checkpoints(tmp_path, 1, IDENTITY, None)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]


def test_checkpoints_of_earlier_versions_are_read(tmp_path: Path) -> None:
    for step, sealed_at in ((4, 9), (6, 1)):
        seal = checkpoint(tmp_path, step) / SEAL_NAME
        content = json.loads(seal.read_text())
        del content["attempt"]
        seal.write_text(json.dumps({**content, "sealed_at": sealed_at}))
    assert resumed(tmp_path, None) == "checkpoint-6"


def test_an_attempt_begins_unless_a_run_resumes_from_the_newest_checkpoint(tmp_path: Path) -> None:
    assert next_attempt(tmp_path, None) == 0
    older, newest = checkpoint(tmp_path, 4, attempt=3), checkpoint(tmp_path, 6, attempt=3)
    assert [next_attempt(tmp_path, resumed) for resumed in (newest, older, None)] == [3, 4, 4]


def test_a_run_does_not_resume_from_checkpoints_of_another_run_by_default(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint(tmp_path, 7, {**IDENTITY, "data": "other"})
    assert resumed(tmp_path, None) is None
    assert (
        "checkpoint-7 belongs to another run (data: other, now abc): this run starts from the beginning" in caplog.text
    )


def test_a_run_resumes_from_a_given_path_unless_it_is_incomplete(tmp_path: Path) -> None:
    complete, foreign = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2, None)
    assert resumed(tmp_path / "elsewhere", str(complete)) == "checkpoint-1"
    assert resumed(tmp_path / "elsewhere", str(foreign)) == "checkpoint-2"
    (complete / "sub" / "weights").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"checkpoint-1 is incomplete"):
        resumed(tmp_path, str(complete))


def test_only_older_checkpoints_of_the_run_are_deleted(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 9, {**IDENTITY, "data": "other"})
    begin_checkpoint(tmp_path / "checkpoint-5")  # killed before it was sealed
    delete_old_checkpoints(tmp_path, None, IDENTITY, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in (1, 2, 3, 4, 9)]
    delete_old_checkpoints(tmp_path, 2, IDENTITY, str(tmp_path / "checkpoint-1"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in (1, 3, 4, 9)]


def test_a_checkpoint_is_incomplete_while_it_is_written_again(tmp_path: Path) -> None:
    place = checkpoint(tmp_path, 4)
    begin_checkpoint(place)
    (place / "trainer_state.json").write_text("{}")
    assert read_seal(place) is None
    seal_checkpoint(place, IDENTITY, STATE, resumable=True)
    assert read_seal(place) is not None
    assert sorted(path.name for path in place.iterdir()) == [SEAL_NAME, "trainer_state.json"]


def test_a_checkpoint_without_the_optimizer_is_refused(tmp_path: Path) -> None:
    place = checkpoint(tmp_path, 4, resumable=False)
    with pytest.raises(TrainingError, match=r"checkpoint-4 holds only the model \(save_only_model=true\)"):
        resumed(tmp_path, str(place))
    assert resumed(tmp_path, None) is resumed(tmp_path, True) is None
