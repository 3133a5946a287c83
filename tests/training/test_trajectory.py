"""The loss is the mean over the trained tokens of the global batch, however that is split; every row is seen once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .material import logged

EPOCHS = 2
ROWS = 29  # three steps of eight rows and one of five

# Imports once; the processes of each launch are forked from one that never computes.
DRIVER = """
import json, os, shutil, sys
from dataclasses import asdict
from pathlib import Path
from sftkit.config.loading import load_config
from sftkit.config.commands import TrainConfig
from sftkit.shards.reading import open_shards
from sftkit.training.arguments.build_arguments import extra_keys, make_training_arguments
from sftkit.training.run import train

def launched(world, argv):
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            try:
                if world > 1:
                    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
                config = load_config(TrainConfig, argv, extra_keys=extra_keys())
                report = train(config, make_training_arguments(config), open_shards(config.training_data_path[0]))
                if rank == 0:
                    Path(config.output_dir, "report.json").write_text(json.dumps(asdict(report), default=str))
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            sys.stderr.flush()
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * world, argv

for number, launch in enumerate(json.loads(sys.argv[1])):
    os.environ["MASTER_PORT"] = launch["port"]
    for checkpoint, output in launch["begun"]:
        shutil.copytree(checkpoint, output)
    launched(launch["processes"], launch["argv"])
"""

# A window of four row groups, and so four lanes.
STREAMING = ("--streaming=true", "--shuffle_window=1000", "--save_strategy=steps", "--save_steps=3")

LAUNCHES = {
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
    "streaming, gone on with one": (
        1,
        [
            "--per_device_train_batch_size=4",
            "--gradient_accumulation_steps=2",
            "--dataloader_num_workers=1",
            *STREAMING,
        ],
    ),
    "streaming, gone on with two": (2, ["--per_device_train_batch_size=4", *STREAMING]),
}

# From which run, and after which of its steps: both are in the middle of an epoch.
GONE_ON = {
    "streaming, gone on with one": ("streaming, two processes", 3),
    "streaming, gone on with two": ("streaming", 6),
}


def lengths() -> list[tuple[int, int]]:
    """Tokens and trained tokens of each row: from one trained token to nearly all of a long row."""
    generator = np.random.default_rng(3)
    return [(length, int(generator.integers(1, length))) for length in generator.integers(3, 70, ROWS).tolist()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A directory with the output of every launch."""
    place = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(4)
    ids = [generator.integers(2, 200, length, np.int32) for length, _ in lengths()]
    labels = [
        np.where(np.arange(len(row)) < len(row) - trained, -100, row)
        for row, (_, trained) in zip(ids, lengths(), strict=True)
    ]
    kind = pa.list_(pa.int32())
    table = pa.table({"input_ids": pa.array(ids, kind), "labels": pa.array(labels, kind)})
    (place / "shards").mkdir()
    pq.write_table(table.slice(0, 20), place / "shards" / "train-0.parquet", row_group_size=6)
    pq.write_table(table.slice(20), place / "shards" / "train-1.parquet")
    pq.write_table(table.slice(0, 7), place / "shards" / "validation-0.parquet")
    common = [
        f"--model_name_or_path={model_dir}", f"--training_data_path={place / 'shards'}", "--use_cpu=true",
        f"--num_train_epochs={EPOCHS}", "--learning_rate=1e-3", "--logging_steps=1", "--save_strategy=no",
        "--log_level=error", "--eval_strategy=epoch", "--per_device_eval_batch_size=2",
    ]  # fmt: skip
    launches = []
    for name, (processes, argv) in LAUNCHES.items():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        argv = [*common, f"--output_dir={place / name}", *argv]
        begun = []
        if name in GONE_ON:
            other, step = GONE_ON[name]
            begun = [(str(place / other / f"checkpoint-{step}"), str(place / name / f"checkpoint-{step}"))]
        launches.append({"processes": processes, "argv": argv, "port": port, "begun": begun})
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(launches)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return place


@pytest.mark.parametrize(
    "name",
    ["two processes", "accumulated", "two processes, accumulated", "split batches", "read by a worker"],
)
def test_the_losses_are_those_of_one_process(runs: Path, name: str) -> None:
    expected = logged(runs / "one process", "loss")
    assert len(expected) == EPOCHS * 4
    assert logged(runs / name, "loss") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("one", "two"),
    [("tokens", "tokens, two processes"), ("streaming", "streaming, two processes"), ("in order", "padded")],
)
def test_so_they_are_with_a_token_budget_with_streaming_and_with_padding(runs: Path, one: str, two: str) -> None:
    assert len(logged(runs / one, "loss")) >= 6
    assert logged(runs / two, "loss") == pytest.approx(logged(runs / one, "loss"), rel=1e-5)


@pytest.mark.parametrize("name", sorted(GONE_ON))
def test_so_they_are_where_another_number_of_processes_goes_on(runs: Path, name: str) -> None:
    _, step = GONE_ON[name]
    expected = logged(runs / "streaming", "loss")
    assert len(expected) == EPOCHS * 4
    assert logged(runs / name, "loss") == pytest.approx(expected[step:], rel=1e-5)  # and none of those before


@pytest.mark.parametrize(
    "name",
    [
        *("one process", "two processes", "tokens", "tokens, two processes", "padded", "streaming"),
        "streaming, two processes",
    ],
)
def test_every_row_is_seen_once_an_epoch(runs: Path, name: str) -> None:
    report = json.loads((runs / name / "report.json").read_text())
    assert report["tokens"] == EPOCHS * sum(tokens for tokens, _ in lengths())
    assert report["trained_tokens"] == EPOCHS * sum(trained for _, trained in lengths())


def test_the_last_step_can_be_dropped(runs: Path) -> None:
    assert len(logged(runs / "drop last", "loss")) == EPOCHS * 3
    assert logged(runs / "drop last", "loss")[:3] == pytest.approx(logged(runs / "one process", "loss")[:3], rel=1e-5)


def test_the_evaluation_is_the_mean_over_trained_tokens(runs: Path) -> None:
    expected = logged(runs / "one process", "eval_loss")
    assert logged(runs / "two processes", "eval_loss") == pytest.approx(expected, rel=1e-5)
    assert logged(runs / "padded", "eval_loss") == pytest.approx(logged(runs / "in order", "eval_loss"), rel=1e-5)
    assert logged(runs / "one process", "eval_perplexity") == pytest.approx(np.exp(expected).tolist())
