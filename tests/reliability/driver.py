"""Run the command line again and again in processes that are killed or fail. A script, started by test_faults.

It imports everything once and forks a process for each run, so that a run pays for no imports; workers are forked too.
As a subreaper it waits for workers that outlive the process that started them.
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

import sftkit.execution.processes

sftkit.execution.processes.START_METHOD = "fork"  # the modules below read it when they are imported

import sftkit.cli.console.output
import sftkit.cli.console.reports.show_preprocess
import sftkit.cli.console.show_progress
import sftkit.config.loading
import sftkit.execution.worker_pool
import sftkit.preprocessing.build
import sftkit.preprocessing.planning
import sftkit.preprocessing.worker_warmup
from sftkit.cli.app import app
from sftkit.core.startup.transformers_import import import_transformers_without_torch

PR_SET_CHILD_SUBREAPER = 36
PLENTY = 64 << 20  # bytes
TIMES = ("seconds", "worker_seconds", "rows_by_programs")
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


def snapshot(out: Path) -> dict[str, Any]:
    """The output of a run: the sha256 of every file, and the manifest without times."""
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    manifest = json.loads(files.pop("manifest.json").read_text())
    for name in TIMES:
        del manifest[name]
    return {
        "manifest": manifest,
        "files": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
    }


def snapshot_and_remove(out: Path) -> dict[str, Any]:
    """The snapshot of a directory, which is then removed."""
    made = snapshot(out)
    shutil.rmtree(out)
    return made


def wait_for(child: int) -> int:
    """Wait for a run and for any workers that it left; its exit code, negative for a signal."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return code


def restore_sigterm_in_forked_processes() -> None:
    """Let a forked worker end at SIGTERM from its first moment, as one started by Python's fork server does.

    Otherwise it would inherit the handler of the run, which ignores the signal while it starts workers.
    """
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}) and None,
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}) and None,
        after_in_child=_default_sigterm,
    )


def _default_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


@dataclass
class Runs:
    """Runs of one command line into one directory.

    `measure` sets how much an uninterrupted run takes.
    """

    argv: list[str]
    out: Path
    seconds: float = 0.0
    changes: int = 0
    """Changes of names in the directory."""
    room: float = 0.0
    """Bytes of disk, at most."""

    def begin(self, prepare: Callable[[], None] = lambda: None) -> int:
        """Start a run, after a call in its process; the process id."""
        child = os.fork()
        if child:
            return child
        try:
            prepare()
            app(["preprocess", *self.argv, f"--output_dir={self.out}"])
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        except KeyboardInterrupt:  # before the command handles interrupts
            os._exit(130)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            sys.stderr.flush()
        os._exit(99)

    def measure(self) -> dict[str, Any]:
        """Make one uninterrupted run and note its time, changes and bytes; the snapshot of its output."""
        noted = self.out.with_name("changes")
        began = time.monotonic()
        assert wait_for(self.begin(self.at_change(1, lambda seen: noted.write_text(str(seen)) and None))) == 0
        self.seconds, self.changes = time.monotonic() - began, int(noted.read_text())
        noted.unlink()
        self.room = 20.0 * sum(path.stat().st_size for path in self.out.rglob("*.parquet"))
        return snapshot_and_remove(self.out)

    def at_change(self, number: int, act: Callable[[int], None]) -> Callable[[], None]:
        """A `prepare` that calls `act` before every change of a name in the directory by the run's main process.

        Args:
            number: the first change that counts, from 1.
            act: is given the number of the change.
        """
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
    """SIGKILL at some time."""
    return signalled_at_a_time(runs, share, signal.SIGKILL)


def killed_at_a_change(runs: Runs, share: float, number: int) -> int:
    """SIGKILL before a change of a name."""
    return signalled_at_a_change(runs, share, signal.SIGKILL)


def interrupted_at_a_result(runs: Runs, share: float, number: int) -> int:
    """SIGTERM and SIGINT in turn, once the workers have finished some work units."""
    wait, left = sftkit.execution.worker_pool.wait, 1 + int(share * RESULTS)

    def wait_and_send(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        finished, left = wait(*arguments, **options), left - 1
        if left == 0:
            os.kill(os.getpid(), INTERRUPTS[number % 2])
        return finished

    def prepare() -> None:
        sftkit.execution.worker_pool.wait = wait_and_send

    return wait_for(runs.begin(prepare))


def interrupted_at_a_time(runs: Runs, share: float, number: int) -> int:
    """SIGTERM and SIGINT in turn, at some time."""
    return signalled_at_a_time(runs, share, INTERRUPTS[number % 2])


def interrupted_at_a_change(runs: Runs, share: float, number: int) -> int:
    """SIGTERM and SIGINT in turn, before a change of a name."""
    return signalled_at_a_change(runs, share, INTERRUPTS[number % 2])


def signalled_at_a_time(runs: Runs, share: float, how: signal.Signals) -> int:
    """Send a signal after a share of the time that a run takes."""
    child = runs.begin()
    time.sleep(share * runs.seconds)
    os.kill(child, how)
    return wait_for(child)


def signalled_at_a_change(runs: Runs, share: float, how: signal.Signals) -> int:
    """Let a run send itself a signal, once, before one of its changes."""
    first = 1 + int(share * runs.changes)

    def send(seen: int) -> None:
        if seen == first:
            os.kill(os.getpid(), how)

    return wait_for(runs.begin(runs.at_change(first, send)))


def worker_killed(runs: Runs, share: float, number: int) -> int:
    """SIGKILL to one of the workers, once there are any."""
    child = runs.begin()
    time.sleep(share * runs.seconds)
    children = Path(f"/proc/{child}/task/{child}/children")
    while " Z " not in Path(f"/proc/{child}/stat").read_text():
        workers = [child for child in children.read_text().split() if is_worker(child)]
        if workers:
            os.kill(int(workers[number % len(workers)]), signal.SIGKILL)
            break
    return wait_for(child)


def is_worker(process: str) -> bool:
    """Whether a child of a run is a worker, and not one that multiprocessing or the watchdog starts beside them."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False
    return b"resource_tracker" not in command and b"watchdog" not in command


def out_of_space(runs: Runs, share: float, number: int) -> int:
    """A file system that is too small."""
    resize(runs.out.parent, int(share * runs.room))
    code = wait_for(runs.begin())
    resize(runs.out.parent, PLENTY)
    return code


def resize(place: Path, size: int) -> None:
    """Change the size of a tmpfs, in bytes."""
    subprocess.run(["mount", "-o", f"remount,size={max(size, 4096)}", str(place)], check=True)


INTERRUPTS = (signal.SIGTERM, signal.SIGINT)
RESULTS = 10
"""Fewer than the times that a run waits for its workers."""
FAULTS = {
    each.__name__: each
    for each in (
        *(killed_at_a_time, killed_at_a_change, interrupted_at_a_time, interrupted_at_a_change),
        *(interrupted_at_a_result, worker_killed, out_of_space),
    )
}


def stage_of(left: list[str]) -> str:
    """How far a run got, by the names of the files that it left."""
    if "manifest.json" in left:
        return "done"
    if ".staging/publishing.json" in left:
        return "publishing"
    if any(name.endswith(".parquet") for name in left):
        return "writing"
    return "staging" if any("/unit-" in name for name in left) else "beginning"


def main() -> None:
    """Run the command line under a fault, each time followed by a run without one, and write what happened as JSON.

    argv: one of FAULTS; how many times; the stages, separated by commas, in which it must strike at least once (it is
    repeated until it has); a directory; and the command line.
    """
    name, times, stages, place, *argv = sys.argv[1:]
    fault, out, missing = FAULTS[name], Path(place, "out"), set(filter(None, stages.split(",")))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have it ignored in the background
    restore_sigterm_in_forked_processes()
    import_transformers_without_torch()
    with suppress(SystemExit):
        app(["preprocess", "--help"])  # imports what the command line needs when first used
    if fault is out_of_space:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={PLENTY}", "tmpfs", place], check=True)
    chance = random.Random(5)  # with which two kills meet two stages
    runs = Runs(argv, out)
    uninterrupted = runs.measure()
    struck: list[dict[str, Any]] = []
    while len(struck) < int(times) or missing:
        code = fault(runs, (len(struck) % int(times) + chance.random()) / int(times), len(struck))
        if code == 0:  # it was done before the fault
            runs.seconds, runs.room = runs.seconds * 0.9, runs.room * 0.9
            shutil.rmtree(out)
            continue
        if len(struck) >= int(times):  # it strikes too early
            runs.seconds *= 1.1
        left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
        missing.discard(stage_of(left))
        again = wait_for(runs.begin())
        made = snapshot_and_remove(out) if again == 0 else None
        struck.append({"code": code, "stage": stage_of(left), "left": left, "again": again, "made": made})
    sys.stdout.write(json.dumps({"uninterrupted": uninterrupted, "runs": struck}))


if __name__ == "__main__":
    main()
