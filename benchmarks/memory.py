"""Peak memory of a process and its largest worker."""

from __future__ import annotations

import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .processes import ENVIRONMENT, ROOT, ContestantError

_INTERVAL = 0.05


@dataclass(frozen=True)
class Peaks:
    """Largest resident size in bytes of the main process and of any descendant (0 without descendants)."""

    main: int
    worker: int


def watch(command: list[str]) -> Peaks:
    """Run a command and read the high-water marks of its processes every 50 ms.

    The kernel keeps the mark; only growth in the last 50 ms of a process can be missed.

    Raises:
        ContestantError: it failed.
    """
    marks: dict[int, int] = {}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            for pid in [process.pid, *_below(process.pid)]:
                # Keep the latest reading: between fork and exec, a child has its parent's mark.
                marks[pid] = _high_water(pid) or marks.get(pid, 0)
            time.sleep(_INTERVAL)
        if process.returncode != 0:
            output.seek(0)
            raise ContestantError(f"{' '.join(command)} exited with {process.returncode}:\n{output.read()[-4000:]}")
    main = marks.pop(process.pid)
    return Peaks(main, max(marks.values(), default=0))


def _high_water(pid: int) -> int:
    """VmHWM in bytes; 0 if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def _below(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, children.read_text(encoding="ascii").split()):
                found += [child, *_below(child)]
    return found
