"""The loss is the mean over the trained tokens of a step, however the step is divided; every row is seen once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .material import Launch, logged, run_launches

EPOCHS = 2
ROWS = 29  # three steps of eight rows and one of five

# The window has room for four row groups, so there are four lanes.
STREAMING = ("--streaming=true", "--shuffle_window=1000", "--save_strategy=steps", "--save_steps=3")

LAUNCHES: dict[str, tuple[int, list[str]]] = {
    "one process": (1, ["--per_device_train_batch_size=8"]),
    "two processes": (2, ["--per_device_train_batch_size=4"]),
    "accumulated": (1, ["--per_device_train_batch_size=2", "--gradient_accumulation_steps=4"]),
    "two processes, accumulated": (2, ["--per_device_train_batch_size=2", "--gradient_accumulation_steps=2"]),
    "in order": (1, ["--per_device_train_batch_size=8", "--train_sampling_strategy=sequential"]),
    "padded": (
        1,
        [
            *("--per_device_train_batch_size=4", "--gradient_accumulation_steps=2", "--padding_free=false"),
            "--train_sampling_strategy=sequential",
        ],
    ),
    "split batches": (2, ["--per_device_train_batch_size=8", "--split_batches=true"]),
    "read by a worker": (1, ["--per_device_train_batch_size=8", "--dataloader_num_workers=1"]),
    "tokens": (1, ["--tokens_per_device_batch=100", "--gradient_accumulation_steps=4"]),
    "tokens, two processes": (2, ["--tokens_per_device_batch=100", "--gradient_accumulation_steps=2"]),
    "drop last": (2, ["--per_device_train_batch_size=4", "--dataloader_drop_last=true"]),
    "streaming": (1, ["--per_device_train_batch_size=8", *STREAMING]),
    "streaming, two processes": (2, ["--per_device_train_batch_size=4", *STREAMING]),
    "streaming, resumed by one": (
        1,
        [
            "--per_device_train_batch_size=4",
            "--gradient_accumulation_steps=2",
            "--dataloader_num_workers=1",
            *STREAMING,
        ],
    ),
    "streaming, resumed by two": (2, ["--per_device_train_batch_size=4", *STREAMING]),
}

RESUMED = {
    "streaming, resumed by one": ("streaming, two processes", 3),
    "streaming, resumed by two": ("streaming", 6),
}
"""Launch -> the launch whose checkpoint it resumes from, and the step; both are in the middle of an epoch."""


def lengths() -> list[tuple[int, int]]:
    """Tokens and trained tokens of each row: from one trained token to nearly all of a long row."""
    generator = np.random.default_rng(3)
    return [(length, int(generator.integers(1, length))) for length in generator.integers(3, 70, ROWS).tolist()]


def write_shards(folder: Path) -> None:
    generator = np.random.default_rng(4)
    ids = [generator.integers(2, 200, length, np.int32) for length, _ in lengths()]
    labels = [
        np.where(np.arange(len(row)) < len(row) - trained, -100, row)
        for row, (_, trained) in zip(ids, lengths(), strict=True)
    ]
    kind = pa.list_(pa.int32())
    table = pa.table({"input_ids": pa.array(ids, kind), "labels": pa.array(labels, kind)})
    folder.mkdir()
    pq.write_table(table.slice(0, 20), folder / "train-0.parquet", row_group_size=6)
    pq.write_table(table.slice(20), folder / "train-1.parquet")
    pq.write_table(table.slice(0, 7), folder / "validation-0.parquet")


def run_named(folder: Path, model_dir: Path, names: Iterable[str]) -> Path:
    """Run some of the launches; the directory with their outputs."""
    write_shards(folder / "shards")
    common = [
        f"--model_name_or_path={model_dir}", f"--training_data_path={folder / 'shards'}", "--use_cpu=true",
        f"--num_train_epochs={EPOCHS}", "--learning_rate=1e-3", "--logging_steps=1", "--save_strategy=no",
        "--log_level=error", "--eval_strategy=epoch", "--per_device_eval_batch_size=2",
    ]  # fmt: skip
    launches = []
    for name in names:
        processes, argv = LAUNCHES[name]
        environment = {"ACCELERATE_USE_CPU": "true"}
        copy = []
        if name in RESUMED:
            other, step = RESUMED[name]
            copy = [(str(folder / other / f"checkpoint-{step}"), str(folder / name / f"checkpoint-{step}"))]
        launches.append(Launch([*common, f"--output_dir={folder / name}", *argv], processes, environment, copy=copy))
    run_launches(launches)
    return folder


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A directory with the outputs of one process and of two."""
    return run_named(tmp_path_factory.mktemp("two_runs"), model_dir, ["one process", "two processes, accumulated"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A directory with the outputs of all launches."""
    return run_named(tmp_path_factory.mktemp("runs"), model_dir, LAUNCHES)


def assert_every_row_is_seen_once_per_epoch(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert report["tokens"] == EPOCHS * sum(tokens for tokens, _ in lengths())
    assert report["trained_tokens"] == EPOCHS * sum(trained for _, trained in lengths())


@pytest.mark.slow
def test_two_processes_see_the_rows_and_losses_of_one(two_runs: Path) -> None:
    one, two = two_runs / "one process", two_runs / "two processes, accumulated"
    assert len(logged(one, "loss")) == EPOCHS * 4
    for key in ("loss", "eval_loss"):
        assert logged(two, key) == pytest.approx(logged(one, key), rel=1e-5)
    assert_every_row_is_seen_once_per_epoch(one)
    assert_every_row_is_seen_once_per_epoch(two)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["two processes", "accumulated", "two processes, accumulated", "split batches", "read by a worker"],
)
def test_losses_do_not_depend_on_how_a_step_is_divided(runs: Path, name: str) -> None:
    expected = logged(runs / "one process", "loss")
    assert len(expected) == EPOCHS * 4
    assert logged(runs / name, "loss") == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "two"),
    [("tokens", "tokens, two processes"), ("streaming", "streaming, two processes"), ("in order", "padded")],
)
def test_losses_are_the_same_with_a_token_budget_with_streaming_and_with_padding(
    runs: Path, one: str, two: str
) -> None:
    assert len(logged(runs / one, "loss")) >= 6
    assert logged(runs / two, "loss") == pytest.approx(logged(runs / one, "loss"), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RESUMED))
def test_a_run_resumed_by_another_number_of_processes_sees_the_same_losses(runs: Path, name: str) -> None:
    _, step = RESUMED[name]
    expected = logged(runs / "streaming", "loss")
    assert len(expected) == EPOCHS * 4
    assert logged(runs / name, "loss") == pytest.approx(expected[step:], rel=1e-5)  # only those after the checkpoint


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("one process", "two processes", "tokens", "tokens, two processes", "padded", "streaming"),
        "streaming, two processes",
    ],
)
def test_every_row_is_seen_once_per_epoch(runs: Path, name: str) -> None:
    assert_every_row_is_seen_once_per_epoch(runs / name)


@pytest.mark.slow
def test_the_last_step_can_be_dropped(runs: Path) -> None:
    assert len(logged(runs / "drop last", "loss")) == EPOCHS * 3
    assert logged(runs / "drop last", "loss")[:3] == pytest.approx(logged(runs / "one process", "loss")[:3], rel=1e-5)


@pytest.mark.slow
def test_the_evaluation_loss_is_the_mean_over_trained_tokens(runs: Path) -> None:
    expected = logged(runs / "one process", "eval_loss")
    assert logged(runs / "two processes", "eval_loss") == pytest.approx(expected, rel=1e-5)
    assert logged(runs / "padded", "eval_loss") == pytest.approx(logged(runs / "in order", "eval_loss"), rel=1e-5)
    assert logged(runs / "one process", "eval_perplexity") == pytest.approx(np.exp(expected).tolist())
