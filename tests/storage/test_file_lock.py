"""One run at a time in an output directory, and what a run that was killed in the middle of publishing leaves."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from sftkit.errors import OutputError
from sftkit.shards.output.local_output import LocalOutput
from sftkit.storage.file_lock import hold_lock
from support import dataset, handler, preprocess, shard_bytes, write_jsonl


def hold(out: str, held: Event) -> None:
    with LocalOutput(Path(out)).open(overwrite=False):
        held.set()
        signal.pause()


@pytest.fixture
def other_run(tmp_path: Path) -> Iterator[BaseProcess]:
    """A process that is at work in `tmp_path / out`."""
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold, args=(str(tmp_path / "out"), held))
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join()


def test_a_directory_belongs_to_one_run_at_a_time_until_that_run_is_dead(
    tmp_path: Path, other_run: BaseProcess
) -> None:
    out = tmp_path / "out"
    refusal = "out: another run is writing there; wait for it, or choose another"
    with pytest.raises(OutputError, match=refusal), LocalOutput(out).open(overwrite=True):
        pass
    assert other_run.pid is not None
    os.kill(other_run.pid, signal.SIGKILL)
    other_run.join()
    assert (out / ".staging" / "lock").exists(), "the file is still there, and holds nobody up"
    with LocalOutput(out).open(overwrite=False):
        pass
    assert not out.exists() or not any(out.iterdir())


def test_a_lock_whose_file_was_taken_away_by_its_holder_is_asked_for_anew(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with hold_lock(lock, tmp_path):
        lock.unlink()
        # Another file of the same name: whoever comes next meets that one.
        with hold_lock(lock, tmp_path), pytest.raises(OutputError), hold_lock(lock, tmp_path):
            pass


def test_files_of_a_run_that_was_killed_while_it_published_are_its_own(tmp_path: Path) -> None:
    rows = [{"input": f"{i}", "output": "yes"} for i in range(9)]
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    data = dataset(write_jsonl(tmp_path / "in.jsonl", rows), data_handlers=[masking])
    options = {"model_name_or_path": "sample:model", "num_dataset_shards": 3}
    out = tmp_path / "out"
    preprocess(out, data, **options)
    whole = shard_bytes(out)
    (out / "manifest.json").unlink()
    with pytest.raises(OutputError, match=r"holds README\.md, which sftkit did not write"):
        preprocess(out, data, **options)
    (out / ".staging").mkdir()
    (out / ".staging" / "publishing.json").write_text(
        '["train-00000-of-00003.parquet", "train-00001-of-00003.parquet"]'
    )
    with pytest.raises(OutputError, match=r"holds train-00002-of-00003\.parquet, which sftkit did not write"):
        preprocess(out, data, **options)
    (out / "train-00002-of-00003.parquet").unlink()
    preprocess(out, data, **options)
    assert shard_bytes(out) == whole
    assert not (out / ".staging").exists()
