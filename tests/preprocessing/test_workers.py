"""Worker processes: when they start, that all of them end, what they import, and the files they share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Ragged, Row
from sftkit.execution.processes import available_cores
from sftkit.shards.manifest import read_manifest
from sftkit.shards.staging.unit_reader import UnitReader
from sftkit.shards.staging.unit_writer import UnitWriter
from sftkit.shards.writing.row_gatherer import open_unit_reader
from support import preprocess, shard_bytes, wait_until, without_progress, write_jsonl

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

MARK = "SFTKIT_TEST_PROCESS"
"""Environment variable that identifies a process and all processes that it starts."""


def marked() -> tuple[str, dict[str, str]]:
    """A new value of the variable, and an environment with it."""
    mark = uuid.uuid4().hex
    return mark, {**os.environ, MARK: mark, "NO_COLOR": "1"}


def processes(mark: str) -> set[int]:
    """The running processes with this value."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return found


def script(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [sys.executable, str(path)]


def printed_by(code: str, *arguments: str | Path) -> list[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


# --- The end of the process that started them ---------------------------------------------------------

SLEEPING = """
import time
from pathlib import Path

def sleep(path):
    Path(path).touch()
    time.sleep(1e6)
"""
SLEEPERS = """
import sys
from sleeping import sleep
from sftkit.execution.worker_pool import WorkerPool

with WorkerPool(2) as workers:
    list(workers.run(sleep, sys.argv[1:]))
"""


@on_linux
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    mark, environment = marked()
    held = [tmp_path / "one", tmp_path / "two"]
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    command = [*script(tmp_path / "sleepers.py", SLEEPERS), *map(str, held)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as running:
        wait_until(lambda: all(path.exists() for path in held), running)
        assert len(processes(mark)) >= 3
        running.kill()
        wait_until(lambda: not processes(mark))
    assert running.returncode == -signal.SIGKILL


# --- Starting early -----------------------------------------------------------------------------------

WARM_UP = """
import multiprocessing, os, sys
from multiprocessing import forkserver
from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.preprocessing.worker_warmup import warm_up_workers

def is_running():
    return forkserver._forkserver._forkserver_pid is not None

before = dict(os.environ)
big, small = sys.argv[1:]
for path, workers in ((small, 2), (small, None), ("nowhere.jsonl", 2), ("hub/id", None), (big, 1), (big, 2)):
    data = DatasetConfig(name="data", data_paths=(path,))
    warm_up_workers(PreprocessConfig(output_dir="o", datasets=(data,), num_workers=workers))
    print(os.path.basename(path), workers, is_running(), dict(os.environ) == before)
"""


@on_linux
@pytest.mark.skipif(available_cores() == 1, reason="with one core no worker is started early")
def test_workers_are_started_early_for_large_data_only_and_the_environment_is_unchanged(tmp_path: Path) -> None:
    for name, size in (("big", 4 << 20), ("small", (4 << 20) - 1)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "in.jsonl").open("wb") as stream:
            stream.truncate(size)
    assert printed_by(WARM_UP, tmp_path / "big", tmp_path / "small" / "*.jsonl") == [
        "*.jsonl 2 False True",
        "*.jsonl None False True",
        "nowhere.jsonl 2 False True",
        "id None False True",
        "big 1 False True",
        "big 2 True True",
    ]


HEAVY = "print([name for name in ('pandas', 'torch', 'transformers', 'numpy', 'pyarrow') if name in sys.modules])"


def test_the_warm_up_module_imports_nothing_heavy() -> None:
    assert printed_by(f"import sys, sftkit.preprocessing.worker_warmup; {HEAVY}") == ["[]"]


# --- A whole command ----------------------------------------------------------------------------------


def talk(number: int) -> Row:
    asked = f"What is {number} times {number % 97}? " + "Please think about it. " * (number % 5)
    answer = f"It is {number * (number % 97)}. 你好 😀 " + f"As said: {number}. " * (number % 501)
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


@on_linux
def test_a_command_with_two_workers_leaves_no_process_and_writes_the_shards_of_one_worker(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", map(talk, range(1_500)))
    assert source.stat().st_size > 4 << 20
    out, (mark, environment) = tmp_path / "two", marked()
    command = [sys.executable, "-m", "sftkit", "preprocess", "--training_data_path", str(source)]
    command += ["--model_name_or_path", "sample:model", "--output_dir", str(out)]
    command += ["--num_workers", "2", "--unit_size", str(1 << 20), "--num_dataset_shards", "4"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, without_progress(done.stderr)) == (0, "")
    wait_until(lambda: not processes(mark))
    two = read_manifest(out)
    assert two is not None
    assert (two.rows_written, two.engine) == (1_500, {"encoder": "gigatoken", "renderer": "compiled"})
    options = {"training_data_path": (str(source),), "model_name_or_path": "sample:model", "num_dataset_shards": 4}
    one = preprocess(tmp_path / "one", num_workers=1, **options)
    assert (two.fingerprint, two.splits) == (one.fingerprint, one.splits)
    assert len(shard_bytes(out)) == 4
    assert shard_bytes(out) == shard_bytes(tmp_path / "one")


# --- Staged rows --------------------------------------------------------------------------------------


def staged(path: Path, batches: list[list[list[int]]]) -> UnitReader:
    with UnitWriter(path) as writer:
        for ids in batches:
            tokens = {"input_ids": Ragged.from_lists(ids), "labels": Ragged.from_lists([[-100] * len(i) for i in ids])}
            writer.write(Batch([{} for _ in ids], np.arange(1, len(ids) + 1), tokens), None, RowLog())
    assert writer.finish(0, RowLog(), {}, {}).rows == sum(map(len, batches))
    return open_unit_reader(path, ("input_ids", "labels"))


def read_rows(reader: UnitReader, name: str, rows: list[int]) -> list[list[int]]:
    places, lengths = reader.locate(name, np.array(rows, np.int64))
    made = [np.full(length, 77, np.int32) for length in lengths]
    reader.read(zip(places.tolist(), made, strict=True))
    return [row.tolist() for row in made]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5), min_size=1, max_size=5), min_size=1, max_size=4
    ),
    data=st.data(),
)
def test_staged_tokens_can_be_read_in_any_order_across_batches(
    tmp_path: Path, batches: list[list[list[int]]], data: st.DataObject
) -> None:
    reader = staged(tmp_path / "unit.arrow", batches)
    rows = [ids for batch in batches for ids in batch]
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12))
    assert read_rows(reader, "input_ids", order) == [rows[at] for at in order]
    assert read_rows(reader, "labels", order) == [[-100] * len(rows[at]) for at in order]


def test_rows_of_a_batch_are_contiguous_and_read_in_one_request(tmp_path: Path) -> None:
    reader = staged(tmp_path / "unit.arrow", [[[1, 2], [], [3, 4, 5]], [[], []], [[6], [7, 8]]])
    places, lengths = reader.locate("input_ids", np.arange(7))
    assert lengths.tolist() == [2, 0, 3, 0, 0, 1, 2]
    assert np.diff(places[:3]).tolist() == [8, 0]
    assert places[6] - places[5] == 4
    first, last = np.empty(5, np.int32), np.empty(3, np.int32)
    reader.read([(int(places[5]), last), (int(places[0]), first)])
    assert (first.tolist(), last.tolist()) == ([1, 2, 3, 4, 5], [6, 7, 8])


def test_a_staged_file_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    reader = staged(tmp_path / "unit.arrow", [[[1, 2, 3]]])
    with (tmp_path / "unit.arrow").open("rb+") as stream:
        stream.truncate(reader.locate("input_ids", np.array([0]))[0].item() + 8)
    with pytest.raises(OSError, match=r"unit\.arrow: ends too early"):
        read_rows(reader, "input_ids", [0])


GATHERED = """
import json, sys
from pathlib import Path
import numpy as np
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Ragged
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.shards.writing.row_gatherer import SequenceSelection
from sftkit.shards.staging.unit_writer import UnitWriter
from sftkit.shards.formats.parquet_shards import write_shard
from sftkit.shards.writing.shard_format import ShardPlace
from sftkit.shards.writing.shard_writer import ShardTask

folder = Path(sys.argv[1])
with UnitWriter(folder / "unit.arrow") as writer:
    column = Ragged.from_lists([[5, 6], [], [7]])
    writer.write(Batch([{}, {}, {}], np.arange(1, 4), {"input_ids": column, "labels": column}), None, RowLog())
unit = writer.finish(0, RowLog(), {}, {})
layout = ShardLayout((unit.path,), (3,), ("input_ids", "labels"), None, unit.retained)
rows = np.array([2, 0, 1])
made = write_shard(layout, ShardTask(ShardPlace(folder, "train", "shard"), SequenceSelection(rows, unit.sizes[rows])))
print(json.dumps([made.rows, made.tokens, "pandas" in sys.modules]))
"""


def test_staging_and_gathering_tokens_imports_no_pandas(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    [line] = printed_by(GATHERED, tmp_path)
    assert json.loads(line) == [3, 3, False]
