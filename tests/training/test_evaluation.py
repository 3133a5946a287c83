"""Evaluation without training, the metric of the best model, and models whose generation config is not valid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, GenerationConfig

from sftkit.api.use_cases import train
from sftkit.errors import ConfigError, TrainingError
from sftkit.training.arguments.checks.best_metric import best_metric_problems

from .material import logged
from .test_run import prepared, run

ALONE = ("--do_train=false", "--do_eval=true")


def test_evaluation_alone_changes_no_file_of_a_trained_model(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    out = tmp_path / "out"
    trained = run(model_dir, shard_dir, out, "--max_steps=2", "--do_eval=true")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    report = run(out, shard_dir, out, *ALONE)
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path.name for path in after.keys() - before.keys()} == {"eval_results.json"}
    assert all(after[path] == content for path, content in before.items())
    assert report.steps == 0
    assert report.eval_loss == pytest.approx(trained.eval_loss, rel=1e-6)
    metrics = json.loads((out / "eval_results.json").read_text())
    assert metrics["eval_loss"] == report.eval_loss


def test_evaluation_alone_needs_no_training_data(tmp_path: Path, model_dir: Path) -> None:
    report = train(
        validation_data_path="sample:validation.jsonl",
        model_name_or_path=str(model_dir),
        output_dir=str(tmp_path / "out"),
        cache_dir=str(tmp_path / "cache"),
        do_train=False,
        do_eval=True,
        use_cpu=True,
    )
    assert report.eval_loss is not None
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["eval_results.json"]


def test_evaluation_alone_needs_a_validation_split(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    train_only_dir = tmp_path / "shards"
    train_only_dir.mkdir()
    shutil.copy(shard_dir / "train-00000-of-00001.parquet", train_only_dir)
    with pytest.raises(TrainingError, match="no validation split"):
        run(model_dir, train_only_dir, tmp_path / "out", *ALONE)


def test_neither_training_nor_evaluation_is_refused(tmp_path: Path, model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="do_train=false leaves nothing to do; set do_eval=true"):
        prepared(model_dir, tmp_path / "out", "--do_train=false")


def test_the_best_model_has_the_lowest_perplexity(tmp_path: Path, model_dir: Path, shard_dir: Path) -> None:
    out = tmp_path / "out"
    run(
        *(model_dir, shard_dir, out, "--max_steps=4", "--learning_rate=3e-3", "--eval_strategy=steps"),
        *("--eval_steps=2", "--save_strategy=steps", "--save_steps=2", "--load_best_model_at_end=true"),
        "--metric_for_best_model=eval_perplexity",
    )
    perplexities = logged(out, "eval_perplexity")
    assert perplexities[1] < perplexities[0]
    state = json.loads((out / "trainer_state.json").read_text())
    assert (state["best_global_step"], state["best_metric"]) == (4, perplexities[1])


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "perplexity", "eval_perplexity"])
def test_metrics_of_an_evaluation_can_choose_the_best_model(metric: str) -> None:
    assert list(best_metric_problems(metric)) == []


def test_a_metric_that_no_evaluation_has_is_refused(tmp_path: Path, model_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"metric_for_best_model: an evaluation has no metric 'eval_perplexty'.*did"):
        prepared(model_dir, tmp_path / "out", "--metric_for_best_model=eval_perplexty")


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        ({"temperature": 0.9, "top_p": 0.6, "do_sample": False, "eos_token_id": 2}, "gets do_sample=true"),
        ({"temperature": 0.9, "eos_token_id": 2}, "gets do_sample=true"),
        ({"num_beams": 1, "early_stopping": True}, "defaults of its architecture"),
    ],
)
def test_a_model_is_saved_whatever_its_generation_config_says(
    tmp_path: Path, model_dir: Path, shard_dir: Path, caplog: pytest.LogCaptureFixture, content: object, warning: str
) -> None:
    model = tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(model_dir).save_pretrained(model)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (model / name).write_bytes((model_dir / name).read_bytes())
    (model / "generation_config.json").write_text(json.dumps(content))
    run(model, shard_dir, tmp_path / "out", "--max_steps=1", "--save_strategy=no")
    said = [record.getMessage() for record in caplog.records if "generation_config.json" in record.getMessage()]
    assert len(said) == 1
    assert warning in said[0]
    GenerationConfig.from_pretrained(tmp_path / "out").validate(strict=True)
