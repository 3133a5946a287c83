"""Early stopping: when a run stops, also after it resumed, what is saved, and what it needs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sftkit.errors import ConfigError
from sftkit.training.callbacks.early_stopping import Waiting, wait_for_better
from sftkit.training.training_report import TrainingReport

from .material import events, logged
from .test_run import prepared, run

WORSE = (
    *("--max_steps=40", "--learning_rate=1", "--max_grad_norm=0", "--eval_strategy=steps", "--eval_steps=2"),
    *("--early_stopping_patience=3", "--logging_steps=1", "--lr_scheduler_type=constant"),
)
"""Options of a run that soon gets worse."""


@pytest.mark.parametrize(
    ("values", "threshold", "waited", "best", "step"),
    [
        ([], 0, 0, math.nan, 0),
        ([3.0], 0, 0, 3.0, 1),
        ([3.0, 2.0, 2.0, 2.5], 0, 2, 2.0, 2),
        ([3.0, 2.95, 2.92], 0.1, 2, 2.92, 3),
        ([3.0, 2.95, 2.8], 0.1, 0, 2.8, 3),
        ([math.nan, math.nan, 2.0, math.inf], 0, 1, 2.0, 3),
    ],
)
def test_evaluations_that_are_not_better_are_counted(
    values: list[float], threshold: float, waited: int, best: float, step: int
) -> None:
    found = wait_for_better(enumerate(values, 1), greater_is_better=False, threshold=threshold)
    assert (found.evaluations, found.best_step) == (waited, step)
    assert found.best == best or math.isnan(found.best) == math.isnan(best)
    negated = wait_for_better([(i, -v) for i, v in enumerate(values, 1)], greater_is_better=True, threshold=threshold)
    assert negated == Waiting(waited, -found.best, step) or math.isnan(best)


def results(report: TrainingReport, out: Path) -> tuple[object, ...]:
    weights = load_file(out / "model.safetensors")
    return (
        report.steps,
        report.stopped_early,
        logged(out, "loss"),
        {name: each.tolist() for name, each in weights.items()},
    )


def test_a_run_stops_early_and_stops_there_again_when_it_resumes(
    tmp_path: Path, model_dir: Path, shard_dir: Path
) -> None:
    out = tmp_path / "out"
    report = run(model_dir, shard_dir, out, *WORSE)
    losses = logged(out, "eval_loss")
    best = losses.index(min(losses)) + 1
    assert report.steps == 2 * (best + 3) == 2 * len(losses) < 40
    assert report.stopped_early == (
        f"eval_loss was not better for 3 evaluations; the best is {min(losses):.4g} at step {2 * best}, saved is the "
        "best model"
    )
    assert logged(out, "stopped_early") == [report.stopped_early]
    expected = results(report, out)
    best_weights = load_file(out / f"checkpoint-{2 * best}/model.safetensors")
    assert all(each.equal(best_weights[name]) for name, each in load_file(out / "model.safetensors").items())
    # Killed after the second of the evaluations that are not better:
    shutil.rmtree(out / f"checkpoint-{report.steps}")
    assert results(run(model_dir, shard_dir, out, *WORSE), out) == expected
    # The same command after the run has stopped does nothing new:
    again = run(model_dir, shard_dir, out, *WORSE)
    assert results(again, out) == expected
    assert again.tokens == 0
    # With more patience the run goes on:
    longer = run(model_dir, shard_dir, out, *WORSE, "--early_stopping_patience=5")
    assert longer.steps > report.steps


def test_another_metric_and_no_best_model(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    out = tmp_path / "out"
    report = run(
        model_dir, shard_dir, out, *WORSE, "--save_strategy=no", "--metric_for_best_model=perplexity",
        "--early_stopping_patience=1", "--early_stopping_threshold=1e30",
    )  # fmt: skip
    assert report.steps == 4
    assert "eval_perplexity was not better by more than 1e+30 for 1 evaluation;" in str(report.stopped_early)
    assert "saved is the model of step 4" in str(report.stopped_early)


def test_a_run_without_patience_ends_as_before(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    report = run(model_dir, shard_dir, tmp_path / "out", "--max_steps=2", "--eval_strategy=steps", "--eval_steps=1")
    assert (report.steps, report.stopped_early) == (2, None)
    assert not any("stopped_early" in event for event in events(tmp_path / "out"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--early_stopping_patience=2"], "early_stopping_patience counts evaluations; set eval_strategy=steps"),
        (["--early_stopping_threshold=0.1"], "early_stopping_threshold is given without early_stopping_patience"),
    ],
)
def test_what_is_missing_is_asked_for(tmp_path: Path, model_dir: Path, argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(model_dir, tmp_path / "out", *argv)


@pytest.mark.parametrize(
    ("argv", "loads_best", "save_steps"),
    [
        ((), True, 2),
        (("--save_steps=4",), True, 4),
        (("--save_steps=3",), False, 3),
        (("--save_strategy=best",), True, 500),
        (("--save_strategy=no",), False, 500),
        (("--load_best_model_at_end=false",), False, 500),
    ],
)
def test_the_best_model_is_loaded_where_the_run_saves_when_it_evaluates(
    tmp_path: Path, model_dir: Path, argv: tuple[str, ...], loads_best: bool, save_steps: int
) -> None:
    line = ("--early_stopping_patience=1", "--eval_strategy=steps", "--eval_steps=2", *argv)
    _, arguments = prepared(model_dir, tmp_path / "out", *line)
    assert (arguments.load_best_model_at_end, arguments.save_steps) == (loads_best, save_steps)
    assert (arguments.metric_for_best_model, arguments.greater_is_better) == ("eval_loss", False)
