from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sftkit.config.commands import TrainConfig
from sftkit.errors import TrainingError
from sftkit.training import distributed
from sftkit.training.arguments.build_arguments import make_training_arguments
from sftkit.training.distributed import (
    is_main_process,
    main_process_first,
    main_process_reports_failure,
    report_lost_processes,
    warn_on_main_process,
    world_size,
)

from .material import FREE_PORT

# Forks two processes for an outcome of the main one. The result does not depend on the pause; it
# only gives a process that does not wait the time to fail.
DRIVER = (
    FREE_PORT
    + """
import json, os, sys, time
from pathlib import Path
import accelerate, torch.distributed
from sftkit.errors import TrainingError
from sftkit.training.distributed import main_process_first

def run(rank, outcome, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    try:
        with main_process_first() as main:
            if main:
                time.sleep(0.2)
                if outcome == "raises":
                    raise RuntimeError("no")
                if outcome == "killed":
                    os._exit(9)
                (folder / outcome).write_text("built")
            else:
                assert (folder / outcome).read_text() == "built"
    except TrainingError as error:
        (folder / f"{outcome}.error").write_text(str(error))
        return 1
    except BaseException:
        return 2
    return 0

folder, outcome = Path(sys.argv[1]), sys.argv[2]
os.environ["MASTER_PORT"] = free_port()
children = []
for rank in (0, 1):
    child = os.fork()
    if not child:
        os._exit(run(rank, outcome, folder))
    children.append(child)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""
)


def launch_two(outcome: str, folder: Path) -> list[int]:
    """The exit codes of two processes; the error of the one that waited for the main one is written to the folder."""
    launch = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    environment = {**os.environ, **launch, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, str(folder), outcome]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    codes: list[int] = json.loads(done.stdout.splitlines()[-1])
    return codes


def test_the_other_processes_wait_for_the_main_one(tmp_path: Path) -> None:
    assert launch_two("succeeds", tmp_path) == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["raises", "killed"])
def test_the_other_processes_fail_when_the_main_one_does(tmp_path: Path, outcome: str) -> None:
    main, other = launch_two(outcome, tmp_path)
    assert main != 0
    assert other == 1
    error = (tmp_path / f"{outcome}.error").read_text()
    assert error == "the main process failed while this one waited for it; see its error message"


def test_without_a_launcher_there_is_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with main_process_first() as main:
        assert main


def test_only_the_main_process_warns(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("sftkit.test")
    warn_on_main_process(logger, "from main")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    warn_on_main_process(logger, "from another")
    assert caplog.messages == ["from main"]
    assert (is_main_process(), world_size()) == (False, 2)


def test_a_failing_process_reports_its_error_unless_the_launcher_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(distributed.time, "sleep", waited.append)
    assert not main_process_reports_failure()  # this is the main process
    assert waited == []
    monkeypatch.setenv("RANK", "1")
    assert not main_process_reports_failure()  # not ended while it waited: it failed alone
    assert waited == [5.0]
    monkeypatch.setattr(distributed.time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line turns it into Ctrl-C
    try:
        assert main_process_reports_failure()
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_a_lost_process_is_a_training_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:20")
    with pytest.raises(RuntimeError, match="Connection closed"), report_lost_processes():
        raise lost
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="another process of this run has ended"), report_lost_processes():
        raise lost
    with pytest.raises(RuntimeError, match="shapes"), report_lost_processes():
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_the_precision_set_with_accelerate_launch_is_used(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    config = TrainConfig(output_dir=str(tmp_path), training_arguments={"use_cpu": "true"})
    assert make_training_arguments(config).bf16 is (precision == "bf16")
