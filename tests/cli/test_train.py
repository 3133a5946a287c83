"""`sftkit train` as a user types it: on shards, on a data config, on text; what is cached and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from reliability.material import sftkit

TINY = (
    "--model_name_or_path", "sample:model", "--init_from_config", "true", "--use_cpu", "true", "--max_steps", "2",
    "--logging_steps", "1", "--per_device_train_batch_size", "4",
)  # fmt: skip


def losses(output: Path) -> list[float]:
    events = [json.loads(line) for line in (output / "training_logs.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if "loss" in event]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"Q: {i} + 1\nA: {i + 1}"}) + "\n" for i in range(8)))
    return path


def test_shards_and_the_data_config_that_made_them_train_alike(tmp_path: Path) -> None:
    config = ("--data_config_path", "sample:data_config.yaml")
    sftkit("preprocess", *config, "--model_name_or_path", "sample:model", "--output_dir", tmp_path / "shards")
    samples = ("--sample_prompts", "What is 2 + 3?", "--sample_steps", "2", "--sample_max_new_tokens", "4")
    on_shards = sftkit(
        "train", "--training_data_path", tmp_path / "shards", "--output_dir", tmp_path / "one", *TINY, *samples,
        "--eval_strategy", "epoch",
    )  # fmt: skip
    on_config = sftkit("train", *config, "--output_dir", tmp_path / "two", "--cache_dir", tmp_path / "cache", *TINY)
    assert (on_shards.code, on_config.code) == (0, 0), on_shards.err + on_config.err
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    assert len(losses(tmp_path / "one")) == 2
    assert ": loss " in on_shards.err
    assert "steps: 2 in all (" in on_shards.err
    assert ", perplexity " in on_shards.err
    assert on_shards.err.count("prompt: What is 2 + 3?") == 2  # before the first step and at the end
    for line in ("steps            2 (", "training loss    ", "validation loss  ", "peak memory      "):
        assert line in on_shards.out
    assert (tmp_path / "one" / "training_curve.png").read_bytes()[:4] == b"\x89PNG"
    assert len((tmp_path / "one" / "samples.jsonl").read_text().splitlines()) == 2
    [built] = (tmp_path / "cache").iterdir()
    before = built.joinpath("manifest.json").stat().st_mtime_ns
    again = sftkit("train", *config, "--output_dir", tmp_path / "three", "--cache_dir", tmp_path / "cache", *TINY)
    assert again.code == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [built.name]
    assert built.joinpath("manifest.json").stat().st_mtime_ns == before


def test_without_matplotlib_one_line_says_how_to_get_the_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    done = sftkit("train", "--data_config_path", "sample:data_config.yaml", "--output_dir", tmp_path / "out",
                  "--cache_dir", tmp_path / "cache", *TINY)  # fmt: skip
    assert done.code == 0, done.err
    assert "pip install 'sftkit[plot]'" in done.err
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "training_curve.png").exists()


def test_text_shards_are_tokenized_by_train_given_the_same_options(texts: Path, tmp_path: Path) -> None:
    made = sftkit("preprocess", "--training_data_path", texts, "--output_dir", tmp_path / "shards")
    assert "`train` tokenizes them" in made.out
    common = ("--training_data_path", tmp_path / "shards", "--cache_dir", tmp_path / "cache", *TINY)
    responses = sftkit("train", *common, "--response_template", "A:", "--output_dir", tmp_path / "responses")
    whole = sftkit("train", *common, "--output_dir", tmp_path / "whole")
    assert (responses.code, whole.code) == (0, 0), responses.err + whole.err
    assert "every token is trained on" in whole.err
    counted = [int(done.out.split(" tokens (")[1].split(" trained")[0]) for done in (responses, whole)]
    assert 0 < counted[0] < counted[1]


def test_text_made_by_a_template_trains_with_the_options_that_made_it(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"q": f"{i} + 1", "a": str(i + 1)}) + "\n" for i in range(8)))
    template = ("--data_formatter_template", "Q: {{q}} A: {{a}}")
    sftkit(
        "preprocess", "--training_data_path", rows, *template, "--model_name_or_path", "sample:model",
        "--output_dir", tmp_path / "shards",
    )  # fmt: skip
    done = sftkit(
        "train", "--training_data_path", tmp_path / "shards", *template, "--response_template", "A:",
        "--output_dir", tmp_path / "out", "--cache_dir", tmp_path / "cache", *TINY,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len(losses(tmp_path / "out")) == 2


def test_special_tokens_may_be_added_to_shards_made_without_them(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    sftkit(
        "preprocess", "--data_config_path", "sample:data_config.yaml", "--model_name_or_path", "sample:model",
        "--output_dir", shards,
    )  # fmt: skip
    done = sftkit(
        "train",
        "--training_data_path",
        shards,
        "--add_special_tokens",
        "<a>",
        "<b>",
        "--output_dir",
        tmp_path / "o",
        *TINY,
    )
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "o" / "config.json").read_text())["vocab_size"] == 2050


@pytest.mark.parametrize(
    ("changes", "exit_code", "sentence"),
    [
        (("--learning_rate", "fast"), 2, "learning_rate"),
        (("--per_device_train_batch_size", "0"), 2, "per_device_train_batch_size must be 1 or more, not 0"),
        (("--no_such_argument", "1"), 2, "unknown option --no_such_argument"),
        (("--training_data_path", "nowhere"), 1, "nowhere: no such file or directory"),
        (("--init_from_config", "false"), 1, "init_from_config"),
        (("--report_to", "tensorbord"), 2, "report_to: unknown tracker 'tensorbord'; did you mean tensorboard?"),
        (
            ("--streaming", "true", "--train_sampling_strategy", "group_by_length"),
            2,
            "train_sampling_strategy=group_by_length needs the lengths of all rows in advance; set streaming=false",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    texts: Path, tmp_path: Path, changes: tuple[str, ...], exit_code: int, sentence: str
) -> None:
    data = () if "--training_data_path" in changes else ("--training_data_path", str(texts))
    places = ("--output_dir", str(tmp_path / "o"), "--cache_dir", str(tmp_path / "c"))
    done = sftkit("train", *data, *places, *TINY, *changes)
    assert done.code == exit_code, done.err
    assert sentence in done.err
    assert "Traceback" not in done.err
