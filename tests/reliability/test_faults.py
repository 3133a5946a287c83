"""A run that anything befalls at whatever moment goes on with the same command, and makes the very same bytes."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from sftkit.errors import OutputError, SourceError
from support import dataset, handler, preprocess, shard_bytes, write_jsonl


@pytest.fixture(scope="module")
def argv(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line whose run has many units, several shards of two splits, packs, and rows that are bad."""
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


def driven(fault: str, times: int, place: Path, argv: list[str], before: Sequence[str] = ()) -> dict[str, Any]:
    """Run the driver; every run must have gone on to what the first one made, which nothing befell."""
    driver = str(Path(__file__).with_name("driver.py"))
    done = subprocess.run(
        [*before, sys.executable, driver, fault, str(times), str(place), *argv],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(told["whole"]["files"]) == {
        *(f"train-{n:05d}-of-00003.parquet" for n in range(3)), "validation-00000-of-00001.parquet",
        "README.md", "quarantine.jsonl",
    }  # fmt: skip
    assert len(told["runs"]) == times
    for run in told["runs"]:
        assert run["again"] == 0
        assert run["made"] == told["whole"]
    assert "Traceback" not in done.stderr
    return {**told, "codes": [run["code"] for run in told["runs"]], "stderr": done.stderr}


def stage_of(left: list[str]) -> str:
    """How far a run had come, by the names that it left."""
    if "manifest.json" in left:
        return "done"
    if ".staging/publishing.json" in left:
        return "publishing"
    if any(name.endswith(".parquet") for name in left):
        return "writing"
    return "staging" if any("/unit-" in name for name in left) else "beginning"


@pytest.mark.parametrize(
    ("fault", "stages"),
    [("killed_at_a_time", {"beginning", "staging"}), ("killed_at_a_change", {"writing", "publishing", "done"})],
)
def test_a_run_killed_at_any_moment_goes_on_and_makes_the_same_bytes(
    fault: str, stages: set[str], tmp_path: Path, argv: list[str]
) -> None:
    """At 25 random times, and before 25 random ones of all the changes that it makes to its directory."""
    told = driven(fault, 25, tmp_path, argv)
    assert stages <= {stage_of(run["left"]) for run in told["runs"]}
    assert told["codes"] == [-signal.SIGKILL] * 25


def test_a_run_that_is_told_to_end_goes_on_when_asked_to(tmp_path: Path, argv: list[str]) -> None:
    told = driven("told_to_end", 8, tmp_path, argv)
    assert set(told["codes"]) <= {130, -signal.SIGTERM}, "SIGTERM may come before it is listened to, or after"
    assert told["codes"].count(130) >= 5
    ended = [run["left"] for run in told["runs"] if run["code"] == 130]
    before = [left for left in ended if stage_of(left) not in ("publishing", "done")]  # moved into place from then on
    assert [name for left in before for name in left if name != ".staging" and "/unit-" not in name] == []
    assert "the same command goes on from them" in told["stderr"]


def test_a_run_whose_worker_dies_says_over_what_and_goes_on_when_asked_to(tmp_path: Path, argv: list[str]) -> None:
    told = driven("worker_killed", 5, tmp_path, argv)
    assert told["codes"] == [1] * 5
    assert "error: a worker process died (out of memory?) while it worked on" in told["stderr"]
    assert "in.jsonl (rows from " in told["stderr"]


MOUNTING = ("unshare", "--map-root-user", "--mount")


def may_mount() -> bool:
    try:
        return subprocess.run([*MOUNTING, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not may_mount(), reason="no file system of a limited size can be mounted here; see the next test")
def test_a_run_without_space_says_so_and_goes_on_when_there_is_some(tmp_path: Path, argv: list[str]) -> None:
    told = driven("out_of_space", 6, tmp_path, argv, MOUNTING)
    assert told["codes"] == [1] * 6
    errors = {line for line in told["stderr"].splitlines() if line.startswith("error: ")}
    assert errors == {f"error: output_dir {tmp_path / 'out'}: cannot be written: No space left on device"}
    assert "staging" in {stage_of(run["left"]) for run in told["runs"]}


class NoSpace:
    """Lets so many writes pass, and then none."""

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


def test_no_space_at_any_write_ends_in_one_sentence_and_nothing_lost(
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
        if failed % 3 == 0:  # else what one run leaves is there when the next one fails
            preprocess(out, data, num_dataset_shards=2, overwrite=True, **options)
            assert shard_bytes(out) == shard_bytes(tmp_path / "whole")
            assert not (out / ".staging").exists()
            for path in out.iterdir():
                path.unlink()
    assert failed > 20
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")


class FailingDisk(LocalFileSystem):
    """Files whose bytes can be read up to a place."""

    protocol = "failing"
    good = 0

    def _open(self, path: str, mode: str = "rb", **keywords: Any) -> IO[bytes]:
        return io.BufferedReader(FailingFile(path, self.good))


class FailingFile(io.FileIO):
    """Fails as a broken disk does."""

    def __init__(self, path: str, good: int) -> None:
        super().__init__(path.removeprefix("failing://"), "rb")
        self._good = good

    def readinto(self, buffer: Any) -> int:
        if self.tell() + len(buffer) > self._good:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(buffer) or 0


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "json"])
def test_a_source_that_cannot_be_read_is_named_and_read_on_when_it_can_be(
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
