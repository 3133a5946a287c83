"""Watch a command while it runs: memory and open files of its processes, and its number of output lines."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .processes import ENVIRONMENT, ROOT, ContestantError

_INTERVAL = 0.1


@dataclass(frozen=True)
class Watched:
    """Resources that a command used."""

    seconds: float
    main: int
    """High-water mark of resident memory of the main process, in bytes."""
    worker: int
    """The same of its largest descendant; 0 without descendants."""
    together: int
    """Largest sum over all of them at one time, in bytes; shared pages count once (PSS)."""
    main_files: int
    """Most files open at one time in the main process."""
    worker_files: int
    """The same in any descendant."""
    lines: int
    """Lines written to standard error."""


def watched(command: list[str], open_files: int) -> Watched:
    """Run a command with a limit on open files (`ulimit -n`), and observe its processes ten times per second.

    Raises:
        ContestantError: it failed.
    """
    marks: dict[int, int] = {}
    files: dict[int, int] = {}
    together = 0
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as output:
        limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (open_files, open_files))
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=errors, preexec_fn=limit)
        while process.poll() is None:
            pids = [process.pid, *_below(process.pid)]
            for pid in pids:
                marks[pid] = _kilobytes(pid, "status", "VmHWM:") or marks.get(pid, 0)
                files[pid] = max(files.get(pid, 0), _open_files(pid))
            together = max(together, sum(_kilobytes(pid, "smaps_rollup", "Pss:") for pid in pids))
            time.sleep(_INTERVAL)
        seconds = time.perf_counter() - began
        errors.seek(0)
        lines = errors.readlines()
        if process.returncode != 0:
            raise ContestantError(f"{' '.join(command)} exited with {process.returncode}:\n{''.join(lines)[-4000:]}")
    main, main_files = marks.pop(process.pid), files.pop(process.pid)
    return Watched(
        seconds=seconds,
        main=main,
        worker=max(marks.values(), default=0),
        together=together,
        main_files=main_files,
        worker_files=max(files.values(), default=0),
        lines=len(lines),
    )


def _kilobytes(pid: int, file: str, name: str) -> int:
    """A value in kilobytes from a file in /proc, in bytes; 0 if the process has ended."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii", errors="replace")
        for line in text.splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0


def _open_files(pid: int) -> int:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - entries may vanish before a Path is used
    return 0


def _below(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text(encoding="ascii").split()):
                found += [child, *_below(child)]
    return found
