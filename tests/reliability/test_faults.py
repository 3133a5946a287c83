"""A run that fails or is killed at any moment resumes with the same command and makes the same bytes."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from reliability.material import HANG
from sftkit.errors import OutputError, SourceError
from sftkit.shards.formats.output_formats import OUTPUT_FORMATS
from support import dataset, handler, preprocess, shard_bytes, write_jsonl


@pytest.fixture(scope="module")
def argv(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line with many units, several shards of two splits, packs, and bad rows."""
    place = tmp_path_factory.mktemp("source")
    rows: list[Any] = [
        {
            "messages": [
                {"role": "user", "content": f"What is {i}?"},
                {"role": "assistant", "content": f"{i}." * (i % 9)},
            ]
        }
        for i in range(600)
    ]
    rows[77] = {"messages": None}
    rows[444] = ["no object"]
    source = write_jsonl(place / "in.jsonl", rows)
    config = place / "data.yaml"
    config.write_text(
        json.dumps({
            "datasets": [{
                "name": "data",
                "data_paths": [str(source)],
                "split": {"train": 0.8, "validation": 0.2},
                "data_handlers": [{"name": "tokenize_and_apply_chat_template_with_masking"}],
            }]
        })
    )  # fmt: skip
    return [
        f"--data_config_path={config}", "--model_name_or_path=sample:model", "--num_workers=2", "--unit_size=3000",
        "--packing=bfd", "--pack_length=256", "--num_dataset_shards=3", "--max_bad_rows=3", "--engine=reference",
    ]  # fmt: skip


def run_with_faults(
    fault: str, times: int, place: Path, argv: list[str], stages: Collection[str] = (), within: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Run the driver with a fault until it has struck so many times, and in all of some stages.

    After each strike the same command must have made the output of an uninterrupted run.
    """
    driver = str(Path(__file__).with_name("driver.py"))
    command = [*within, sys.executable, driver, fault, str(times), ",".join(stages), str(place), *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert {name for name in result["uninterrupted"]["files"] if "/" not in name} == {
        *(f"train-{n:05d}-of-00003.parquet" for n in range(3)), "validation-00000-of-00001.parquet",
        "README.md", "quarantine.jsonl",
    }  # fmt: skip
    runs: list[dict[str, Any]] = result["runs"]
    assert len(runs) >= times
    for run in runs:
        assert run["again"] == 0, done.stderr[-3000:]
        assert run["made"] == result["uninterrupted"]
    assert "Traceback" not in done.stderr, done.stderr[-6000:]
    return [{**run, "stderr": done.stderr} for run in runs]


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("fault", "times", "stages"),
    [
        pytest.param("killed_at_a_change", 2, {"publishing", "done"}, id="2 changes"),
        pytest.param("killed_at_a_change", 25, {"writing", "publishing", "done"}, id="25 changes", marks=slow),
        pytest.param("killed_at_a_time", 25, {"beginning", "staging"}, id="25 times", marks=slow),
    ],
)
def test_a_run_killed_at_any_moment_resumes_and_makes_the_same_bytes(
    fault: str, times: int, stages: set[str], tmp_path: Path, argv: list[str]
) -> None:
    """At random times, and before random ones of all the changes that it makes to its directory."""
    runs = run_with_faults(fault, times, tmp_path, argv, stages)
    assert {run["code"] for run in runs} == {-signal.SIGKILL}


def test_a_run_killed_while_it_publishes_other_formats_makes_the_same_bytes(tmp_path: Path, argv: list[str]) -> None:
    formats = f"--output_format={','.join(OUTPUT_FORMATS)}"
    runs = run_with_faults("killed_at_a_change", 2, tmp_path, [*argv, formats], {"publishing", "done"})
    assert {run["code"] for run in runs} == {-signal.SIGKILL}
    names = {name.split("/")[0] for run in runs for name in run["made"]["files"] if "/" in name}
    assert names == {*OUTPUT_FORMATS} - {"parquet"}


@pytest.mark.parametrize(
    ("fault", "times", "stages", "codes"),
    [
        pytest.param("interrupted_at_a_result", 2, {"staging"}, {130}, id="2 results"),
        pytest.param("interrupted_at_a_change", 8, set(), {130}, id="8 changes", marks=slow),
        # SIGTERM may come before there is a handler, or when there is none any more.
        pytest.param("interrupted_at_a_time", 8, {"staging"}, {130, -signal.SIGTERM}, id="8 times", marks=slow),
    ],
)
def test_an_interrupted_run_leaves_complete_units_and_resumes(
    fault: str, times: int, stages: set[str], codes: set[int], tmp_path: Path, argv: list[str]
) -> None:
    runs = run_with_faults(fault, times, tmp_path, argv, stages)
    assert {run["code"] for run in runs} <= codes, runs[0]["stderr"]
    # From publishing on, files are moved into place.
    before = [run for run in runs if run["code"] == 130 and run["stage"] not in ("publishing", "done")]
    harmless = (".staging", ".staging/lock")  # the file of a lock that is interrupted stays, and locks nothing
    assert [name for run in before for name in run["left"] if name not in harmless and "/unit-" not in name] == []
    if "staging" in stages:
        assert "the same command resumes from them" in runs[0]["stderr"]


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=slow)])
def test_a_run_whose_worker_dies_names_its_work_and_resumes(times: int, tmp_path: Path, argv: list[str]) -> None:
    runs = run_with_faults("worker_killed", times, tmp_path, argv)
    assert {run["code"] for run in runs} == {1}
    assert "error: a worker process died (out of memory?) while it worked on" in runs[0]["stderr"]
    assert "in.jsonl (rows from " in runs[0]["stderr"]


MOUNTING = ("unshare", "--map-root-user", "--mount")


def may_mount() -> bool:
    try:
        return subprocess.run([*MOUNTING, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
    except OSError:
        return False


@slow
@pytest.mark.skipif(not may_mount(), reason="no file system of a limited size can be mounted here; see the next test")
def test_a_run_without_space_fails_with_one_sentence_and_resumes(tmp_path: Path, argv: list[str]) -> None:
    runs = run_with_faults("out_of_space", 6, tmp_path, argv, {"staging"}, MOUNTING)
    assert {run["code"] for run in runs} == {1}
    errors = {line for line in runs[0]["stderr"].splitlines() if line.startswith("error: ")}
    assert errors == {f"error: output_dir {tmp_path / 'out'}: cannot be written: No space left on device"}


class NoSpace:
    """Lets a number of writes pass and fails the others."""

    def __init__(self, passing: int) -> None:
        self.left = passing

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any, **keywords: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **keywords)

        return checked


WRITES = (
    (pa.ipc, "new_file"), (pq.ParquetWriter, "write_table"), (os, "fsync"), (Path, "replace"), (Path, "write_text"),
    (Path, "mkdir"),
)  # fmt: skip


def test_no_space_at_any_write_fails_with_one_sentence_and_loses_nothing(
    tmp_path: Path, tokenizer_path: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = [{"input": f"{i}", "output": "x" * (i % 7)} for i in range(40)]
    source = write_jsonl(tmp_path / "in.jsonl", [*rows, "bad"])
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    data = dataset(source, data_handlers=[masking])
    options = {"model_name_or_path": tokenizer_path("bpe"), "unit_size": 600, "max_bad_rows": 1}
    preprocess(tmp_path / "whole", data, num_dataset_shards=2, **options)
    out = tmp_path / "out"
    failed = 0
    while True:
        refused: Exception | None = None
        with monkeypatch.context() as patched:
            space = NoSpace(failed)
            for place, name in WRITES:
                patched.setattr(place, name, space.before(getattr(place, name)))
            try:
                preprocess(out, data, num_dataset_shards=2, **options)
            except OutputError as error:
                refused = error
        if refused is None:
            break
        assert str(refused) == f"output_dir {out}: cannot be written: No space left on device"
        failed += 1
        assert not (out / "manifest.json").exists() or shard_bytes(out) == shard_bytes(tmp_path / "whole")
        if failed % 3 == 0:  # otherwise the next failure meets what this one left
            preprocess(out, data, num_dataset_shards=2, overwrite=True, **options)
            assert shard_bytes(out) == shard_bytes(tmp_path / "whole")
            assert not (out / ".staging").exists()
            for path in out.iterdir():
                path.unlink()
    assert failed > 20
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")


class FailingDisk(LocalFileSystem):
    """Files that can be read up to the byte `good`."""

    protocol = "failing"
    good = 0

    def _open(self, path: str, mode: str = "rb", **keywords: Any) -> IO[bytes]:
        return io.BufferedReader(FailingFile(path, self.good))


class FailingFile(io.FileIO):
    """Fails like a broken disk."""

    def __init__(self, path: str, good: int) -> None:
        super().__init__(path.removeprefix("failing://"), "rb")
        self._good = good

    def readinto(self, buffer: Any) -> int:
        if self.tell() + len(buffer) > self._good:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(buffer) or 0


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "json"])
def test_a_source_that_cannot_be_read_is_named_and_resumed_when_it_can_be(
    kind: str, tmp_path: Path, tokenizer_path: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("failing", FailingDisk, clobber=True)
    rows = [{"input": f"{i}", "output": "x" * (i % 7)} for i in range(3000)]
    source = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), source, row_group_size=500)
    else:
        source.write_text(json.dumps(rows) if kind == "json" else "".join(f"{json.dumps(row)}\n" for row in rows))
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    data = dataset(f"failing://{source}", data_handlers=[masking])
    options = {"model_name_or_path": tokenizer_path("bpe"), "unit_size": 20_000}
    monkeypatch.setattr(FailingDisk, "good", 1 << 40)
    preprocess(tmp_path / "whole", data, **options)
    for good in range(0, source.stat().st_size, source.stat().st_size // 5):
        monkeypatch.setattr(FailingDisk, "good", good)
        with pytest.raises(SourceError, match=rf"in\.{kind}.*: (cannot be read|.*Input/output error)"):
            preprocess(tmp_path / "out", data, **options)
        assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.setattr(FailingDisk, "good", 1 << 40)
    preprocess(tmp_path / "out", data, **options)
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "whole")
