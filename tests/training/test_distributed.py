from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
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

SCRIPT = """
import os, sys, time
from sftkit.errors import TrainingError
from sftkit.training.distributed import main_process_first
fate, place = sys.argv[1:]
try:
    with main_process_first() as main:
        if main:
            time.sleep(1)
            if fate == "raises":
                raise RuntimeError("no")
            if fate == "killed":
                os._exit(9)
            open(place, "w").write("built")
        else:
            assert open(place).read() == "built"
except TrainingError as error:
    sys.exit(f"TrainingError: {error}")
"""


def launch(tmp_path: Path, fate: str) -> list[tuple[int, str]]:
    """Exit code and error output of the main process and of the one that waits for it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, fate, str(tmp_path / "built")],
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    return [(process.returncode, errors) for process in processes for errors in [process.communicate(timeout=120)[1]]]


def test_the_others_wait_for_the_main_process(tmp_path: Path) -> None:
    assert [code for code, _ in launch(tmp_path, "succeeds")] == [0, 0]


@pytest.mark.parametrize("fate", ["raises", "killed"])
def test_the_others_do_not_wait_for_a_main_process_that_failed(tmp_path: Path, fate: str) -> None:
    began = time.monotonic()
    [(main, _), (other, said)] = launch(tmp_path, fate)
    assert main != 0
    assert other == 1
    assert "TrainingError: the main process failed while this one waited for it" in said
    assert time.monotonic() - began < 60


def test_a_run_of_one_process_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with main_process_first() as main:
        assert main


def test_only_the_main_process_warns(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    logger = logging.getLogger("sftkit.test")
    warn_on_main_process(logger, "from main")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    warn_on_main_process(logger, "from another")
    assert caplog.messages == ["from main"]
    assert (is_main_process(), world_size()) == (False, 2)


def test_a_process_that_fails_gives_the_main_one_time_to_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not main_process_reports_failure()  # this is the main one
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(distributed, "_GRACE", 0.01)
    assert not main_process_reports_failure()  # nobody ended it: it failed alone
    monkeypatch.setattr(distributed, "_GRACE", 30)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert main_process_reports_failure()
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_a_process_that_has_gone_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:20")
    with pytest.raises(RuntimeError, match="Connection closed"), report_lost_processes():
        raise lost
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="another process of this run has ended"), report_lost_processes():
        raise lost
    with pytest.raises(RuntimeError, match="shapes"), report_lost_processes():
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize("asked", ["bf16", "no"])
def test_the_precision_that_accelerate_asks_for_is_known(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    config = TrainConfig(output_dir=str(tmp_path), training_arguments={"use_cpu": "true"})
    assert make_training_arguments(config).bf16 is (asked == "bf16")
