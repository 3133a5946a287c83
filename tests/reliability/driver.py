"""Runs the command line over and over in processes that something befalls. A script, started by test_faults.

It imports everything once and forks a process for each run, so that a run costs what it does and no import; the workers
are forked too. As subreaper it waits for workers that outlive the process that started them.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sftkit.cli.console.output
import sftkit.cli.console.show_preprocess
import sftkit.cli.console.show_progress
import sftkit.config.loading
import sftkit.execution.worker_pool
import sftkit.preprocessing.build
import sftkit.preprocessing.planning
import sftkit.preprocessing.worker_warmup
from sftkit.cli.app import app
from sftkit.core.transformers_import import import_transformers_without_torch

PR_SET_CHILD_SUBREAPER = 36
PLENTY = 64 << 20  # bytes
TIMES = ("seconds", "worker_seconds")
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


def snapshot(out: Path) -> dict[str, Any]:
    """All that a run has made: the sha256 of every file, and of the manifest what is no time."""
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    manifest = json.loads(files.pop("manifest.json").read_text())
    for name in TIMES:
        del manifest[name]
    return {
        "manifest": manifest,
        "files": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
    }


def taken(out: Path) -> dict[str, Any]:
    """The snapshot of a directory, which makes room for the next run."""
    made = snapshot(out)
    shutil.rmtree(out)
    return made


def ended(child: int) -> int:
    """Wait for a run and for all workers that it leaves; its exit code, negative for a signal."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return code


@dataclass
class Runs:
    """Runs of one command line into one directory.

    seconds, changes, room: at most what a run takes that nothing befalls: time, changes of names, and bytes.
    """

    argv: list[str]
    out: Path
    seconds: float = 0.0
    changes: int = 0
    room: float = 0.0

    def begin(self, prepare: Callable[[], None] = lambda: None) -> int:
        """Start a run, after a call in its process; the process's id."""
        child = os.fork()
        if child:
            return child
        try:
            prepare()
            app(["preprocess", *self.argv, f"--output_dir={self.out}"])
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            sys.stderr.flush()
        os._exit(99)

    def measured(self) -> dict[str, Any]:
        """One run that nothing befalls: what it made, once time, changes and bytes are noted."""
        noted = self.out.with_name("changes")
        began = time.monotonic()
        assert ended(self.begin(self.at_change(1, lambda seen: noted.write_text(str(seen)) and None))) == 0
        self.seconds, self.changes = time.monotonic() - began, int(noted.read_text())
        noted.unlink()
        self.room = 20.0 * sum(path.stat().st_size for path in self.out.rglob("*.parquet"))
        return taken(self.out)

    def at_change(self, number: int, act: Callable[[int], None]) -> Callable[[], None]:
        """What has a process act before every change that it makes to the names in the directory, from a number on."""
        seen = 0
        process = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            ours = event in CHANGES or opened
            if ours and str(self.out) in str(arguments[0]) and os.getpid() == process:
                seen += 1
                if seen >= number:
                    act(seen)

        def prepare() -> None:
            nonlocal process
            process = os.getpid()
            sys.addaudithook(hook)

        return prepare


def killed_at_a_time(runs: Runs, share: float, number: int) -> int:
    """Killed as nothing can hold up."""
    return struck(runs, share, signal.SIGKILL)


def told_to_end(runs: Runs, share: float, number: int) -> int:
    """Terminated or interrupted."""
    return struck(runs, share, (signal.SIGTERM, signal.SIGINT)[number % 2])


def struck(runs: Runs, share: float, how: signal.Signals) -> int:
    """A signal comes after a share of the time that a run takes."""
    child = runs.begin()
    time.sleep(share * runs.seconds)
    os.kill(child, how)
    return ended(child)


def killed_at_a_change(runs: Runs, share: float, number: int) -> int:
    """Killed before one of the changes that it makes."""
    act = runs.at_change(1 + int(share * runs.changes), lambda _: os.kill(os.getpid(), signal.SIGKILL))
    return ended(runs.begin(act))


def worker_killed(runs: Runs, share: float, number: int) -> int:
    """One of its workers is killed, once it has any."""
    child = runs.begin()
    time.sleep(share * runs.seconds)
    children = Path(f"/proc/{child}/task/{child}/children")
    while " Z " not in Path(f"/proc/{child}/stat").read_text():
        workers = children.read_text().split()
        if workers:
            os.kill(int(workers[number % len(workers)]), signal.SIGKILL)
            break
    return ended(child)


def out_of_space(runs: Runs, share: float, number: int) -> int:
    """The file system is too small for it."""
    resize(runs.out.parent, int(share * runs.room))
    code = ended(runs.begin())
    resize(runs.out.parent, PLENTY)
    return code


def resize(place: Path, size: int) -> None:
    """Give a tmpfs another size, in bytes."""
    subprocess.run(["mount", "-o", f"remount,size={max(size, 4096)}", str(place)], check=True)


FAULTS = {
    each.__name__: each for each in (killed_at_a_time, killed_at_a_change, told_to_end, worker_killed, out_of_space)
}


def main() -> None:
    """argv: one of FAULTS, how many times, a directory, and the command line. Writes JSON."""
    fault, times, place, argv = FAULTS[sys.argv[1]], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sftkit.preprocessing.worker_warmup.START_METHOD = sftkit.execution.worker_pool.START_METHOD = "fork"
    import_transformers_without_torch()
    with suppress(SystemExit):
        app(["preprocess", "--help"])  # what the command line imports when it is first used
    if fault is out_of_space:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={PLENTY}", "tmpfs", str(place)], check=True)
    chance = random.Random(1)
    runs = Runs(argv, place / "out")
    whole = runs.measured()
    told: list[dict[str, Any]] = []
    while len(told) < times:
        code = fault(runs, (len(told) + chance.random()) / times, len(told))
        if code == 0:  # it was done before the fault came
            runs.seconds, runs.room = runs.seconds * 0.9, runs.room * 0.9
            shutil.rmtree(runs.out)
            continue
        left = sorted(path.relative_to(runs.out).as_posix() for path in runs.out.rglob("*"))
        again = ended(runs.begin())
        told.append({"code": code, "left": left, "again": again, "made": taken(runs.out) if again == 0 else None})
    sys.stdout.write(json.dumps({"whole": whole, "runs": told}))


if __name__ == "__main__":
    main()
