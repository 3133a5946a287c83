"""One run at a time in an output directory, and runs that are killed while they hold the lock or publish shards."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from sftkit.errors import OutputError
from sftkit.shards.output.local_output import LocalOutput
from sftkit.storage.file_lock import hold_lock
from support import dataset, handler, preprocess, shard_bytes, write_jsonl


def hold(out: str, ready: Connection) -> None:
    with LocalOutput(Path(out)).open(overwrite=False):
        child = os.fork()  # a worker process, which a kill of the run does not reach
        if not child:
            time.sleep(600)
            os._exit(0)
        ready.send(child)
        signal.pause()


@pytest.fixture
def other_run(tmp_path: Path) -> Iterator[BaseProcess]:
    """A process that holds the lock of `tmp_path / out` and has forked a child."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=hold, args=(str(tmp_path / "out"), sender))
    process.start()
    child: int = receiver.recv()
    yield process
    os.kill(child, signal.SIGKILL)
    process.kill()
    process.join()


def test_a_directory_belongs_to_one_run_until_that_run_is_dead(tmp_path: Path, other_run: BaseProcess) -> None:
    out = tmp_path / "out"
    refusal = "out: another run is writing there; wait for it, or choose another"
    with pytest.raises(OutputError, match=refusal), LocalOutput(out).open(overwrite=True):
        pass
    assert other_run.pid is not None
    os.kill(other_run.pid, signal.SIGKILL)
    other_run.join()
    assert (out / ".staging" / "lock").exists(), "the file is still there, but nobody holds the lock"
    with LocalOutput(out).open(overwrite=False):
        pass
    assert not out.exists() or not any(out.iterdir())


def test_a_lock_file_that_its_holder_removed_is_created_again(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with hold_lock(lock, tmp_path):
        lock.unlink()
        # The next holder locks a new file of the same name.
        with hold_lock(lock, tmp_path), pytest.raises(OutputError), hold_lock(lock, tmp_path):
            pass


def test_a_holder_that_removed_its_lock_file_does_not_remove_that_of_the_next_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    first, second = hold_lock(lock, tmp_path), hold_lock(lock, tmp_path)
    first.__enter__()
    lock.unlink()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(OutputError), hold_lock(lock, tmp_path):
        pass
    second.__exit__(None, None, None)


def test_a_file_system_without_locks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_implemented(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", not_implemented)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)), hold_lock(tmp_path / "lock", tmp_path):
        pass


def test_files_of_a_run_that_was_killed_while_publishing_are_recognized(tmp_path: Path) -> None:
    rows = [{"input": f"{i}", "output": "yes"} for i in range(9)]
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    data = dataset(write_jsonl(tmp_path / "in.jsonl", rows), data_handlers=[masking])
    options = {"model_name_or_path": "sample:model", "num_dataset_shards": 3}
    out = tmp_path / "out"
    preprocess(out, data, **options)
    complete = shard_bytes(out)
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
    assert shard_bytes(out) == complete
    assert not (out / ".staging").exists()
