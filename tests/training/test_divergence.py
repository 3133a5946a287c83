"""Losses that are not finite: logged as null, said once, and a run that ends with them fails."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sftkit.cli.app import app
from sftkit.errors import TrainingError

from .material import events
from .test_run import run

DIVERGING = ("--learning_rate=1e30", "--max_grad_norm=0", "--per_device_train_batch_size=2", "--save_strategy=no")


def test_a_diverged_run_logs_null_and_says_since_which_step(
    tmp_path: Path, model_dir: Path, shard_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = run(model_dir, shard_dir, tmp_path / "out", *DIVERGING, "--max_steps=4")
    losses = [event["loss"] for event in events(tmp_path / "out") if "loss" in event]
    assert losses[0] is not None
    assert losses[1:] == [None, None, None]
    assert report.diverged_at == 2
    assert math.isnan(report.last_loss or 0.0)
    said = [record.getMessage() for record in caplog.records if "not finite" in record.getMessage()]
    assert said == [
        "the loss is not finite (NaN or infinite) since step 2; it is logged as null. Lower learning_rate, or set "
        "max_grad_norm; stop_on_nonfinite=N stops a run after N such steps"
    ]


def test_a_run_stops_after_so_many_losses_that_are_not_finite(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    report = run(model_dir, shard_dir, tmp_path / "out", *DIVERGING, "--max_steps=40", "--stop_on_nonfinite=2")
    assert report.steps == 3
    assert report.diverged_at == 2


def test_a_sound_run_has_not_diverged(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    report = run(model_dir, shard_dir, tmp_path / "out", "--max_steps=2", "--stop_on_nonfinite=1")
    assert (report.steps, report.diverged_at, report.nonfinite.first_step) == (2, None, 0)


def test_the_command_fails_after_its_summary(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    line = ["train", "--training_data_path", str(shard_dir), "--model_name_or_path", str(model_dir), "--output_dir"]
    done = CliRunner().invoke(app, [*line, str(tmp_path / "out"), "--use_cpu=true", "--max_steps=3", *DIVERGING])
    assert done.exit_code == TrainingError.exit_code == 1
    assert "not finite" in done.stdout
    assert "the run diverged: its loss is not finite since step 2" in done.stderr


def test_a_resumed_run_remembers_such_losses(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    line = (*DIVERGING[:-1], "--max_steps=4", "--save_steps=2", "--save_strategy=steps")
    run(model_dir, shard_dir, tmp_path / "out", *line)
    seal = json.loads((tmp_path / "out/checkpoint-2/sftkit_checkpoint.json").read_text())
    assert seal["progress"]["nonfinite"] == {"first_step": 2, "last_step": 2, "in_a_row": 1, "since_log": False}
    whole = (tmp_path / "out/training_logs.jsonl").read_text()
    for name in ("checkpoint-4", "model.safetensors"):
        target = tmp_path / "out" / name
        (target.rename(tmp_path / f"gone-{name}"))
    report = run(model_dir, shard_dir, tmp_path / "out", *line)
    assert report.diverged_at == 2
    assert report.nonfinite.in_a_row == 3
    assert _losses(whole) == _losses((tmp_path / "out/training_logs.jsonl").read_text())


def _losses(text: str) -> list[float | None]:
    return [event["loss"] for event in map(json.loads, text.splitlines()) if "loss" in event]
