"""Several named data sets to evaluate on (`eval_data`), each with a loss of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sftkit.api.use_cases import train
from sftkit.cli.console.reports.training.show_training import event_line
from sftkit.errors import ConfigError, SftkitError
from sftkit.training.arguments.checks.best_metric import best_metric_problems, is_better_when_greater
from sftkit.training.metrics.loss_curve import read_curves

from .material import events, logged

WriteRows = Callable[[Path, Any, Any], None]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, shard_dir: Path, write_rows: WriteRows) -> dict[str, Path]:
    """The first validation row, and the two others twice, as tokenized Parquet."""
    rows = pq.read_table(shard_dir / "validation-00000-of-00001.parquet").to_pydict()
    folder = tmp_path_factory.mktemp("sets")
    for name, chosen in {"one": [0], "two": [1, 2, 1, 2]}.items():
        path = folder / f"{name}.parquet"
        write_rows(path, *([rows[column][row] for row in chosen] for column in ("input_ids", "labels")))
    return {"one": folder / "one.parquet", "two": folder / "two.parquet"}


def run(model: Path, output: Path, sets: dict[str, Path] | dict[str, str], **keys: Any) -> Any:
    return train(
        model_name_or_path=str(model), output_dir=str(output), use_cpu=True, logging_steps=1,
        cache_dir=str(output.parent / "cache"), per_device_train_batch_size=4, learning_rate=1e-2,
        eval_data={name: str(path) for name, path in sets.items()}, **keys,
    )  # fmt: skip


def trained_tokens(*paths: Path) -> list[int]:
    rows = [pq.read_table(path).column("labels").to_pylist() for path in paths]
    return [sum(label != -100 for labels in each for label in labels[1:]) for each in rows]


def test_each_set_has_its_loss_and_all_have_the_mean_over_tokens(
    tmp_path: Path, model_dir: Path, shard_dir: Path, sets: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    argv: dict[str, Any] = {
        "training_data_path": str(shard_dir), "max_steps": 4, "eval_strategy": "steps", "eval_steps": 2,
        "save_steps": 2, "metric_for_best_model": "eval_two_loss", "load_best_model_at_end": True,
    }  # fmt: skip
    report = run(model_dir, out, sets, **argv)
    names = {"one": sets["one"], "two": sets["two"], "validation": shard_dir / "validation-00000-of-00001.parquet"}
    counts = trained_tokens(*names.values())
    last = [event for event in events(out) if "eval_loss" in event][-1]
    losses = [last[f"eval_{name}_loss"] for name in names]
    assert last["eval_loss"] == pytest.approx(sum(map(float.__mul__, losses, map(float, counts))) / sum(counts))
    assert report.eval_losses == dict(zip(names, losses, strict=True))
    assert json.loads((out / "trainer_state.json").read_text())["best_metric"] == min(logged(out, "eval_two_loss"))
    assert {"one loss", "two loss", "validation loss"} <= {
        curve.name for curve in read_curves(out / "training_logs.jsonl")
    }
    assert f"one {losses[0]:.4f}, two {losses[1]:.4f}" in event_line(last).plain
    alone = run(model_dir, tmp_path / "alone", sets, training_data_path=str(shard_dir), do_train=False)
    again = run(out, tmp_path / "again", sets, training_data_path=str(shard_dir), do_train=False)
    assert alone.eval_loss > again.eval_loss
    written = json.loads((tmp_path / "again" / "eval_results.json").read_text())
    assert written["eval_two_loss"] == pytest.approx(min(logged(out, "eval_two_loss")), rel=1e-6)


def test_an_evaluation_alone_needs_no_other_data(tmp_path: Path, model_dir: Path, sets: dict[str, Path]) -> None:
    report = run(model_dir, tmp_path / "out", {"two": sets["two"]}, do_train=False)
    assert report.eval_losses == {"two": report.eval_loss}
    written = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert written["eval_two_loss"] == written["eval_loss"] == report.eval_loss


def test_raw_data_and_shards_can_be_sets(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    raw = {"raw": "sample:validation.jsonl", "shards": str(shard_dir)}
    report = run(model_dir, tmp_path / "out", raw, do_train=False)
    assert list(report.eval_losses) == ["raw", "shards"]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"a b": "x"}, "eval_data: the name 'a b' is part of names of metrics; use letters"),
        ({"a": ""}, r"eval_data\.a is empty; name at least one path"),
        ({"a": "missing.jsonl"}, r"missing\.jsonl"),
        ({"validation": "SHARDS"}, "eval_data: validation is the name of the validation split of"),
    ],
)
def test_wrong_sets_are_refused(
    tmp_path: Path, model_dir: Path, shard_dir: Path, sets: dict[str, str], message: str
) -> None:
    given = {name: path.replace("SHARDS", str(shard_dir)) for name, path in sets.items()}
    with pytest.raises(SftkitError, match=message):
        run(model_dir, tmp_path / "out", given, training_data_path=str(shard_dir), max_steps=1)


def test_the_metrics_of_sets_can_choose_the_best_model() -> None:
    assert list(best_metric_problems("eval_math_loss", ["math"])) == []
    assert list(best_metric_problems("math_perplexity", ["math"])) == []
    assert "choose one of" in next(best_metric_problems("eval_code_loss", ["math"]))
    assert not is_better_when_greater("eval_math_perplexity")


def test_a_best_metric_of_a_split_that_is_not_there_is_refused(
    tmp_path: Path, model_dir: Path, sets: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError, match="metric_for_best_model=eval_validation_loss: there is no validation split"):
        run(
            model_dir, tmp_path / "out", sets, training_data_path=str(sets["two"]), max_steps=1,
            metric_for_best_model="eval_validation_loss",
        )  # fmt: skip
