"""The process that ends another one which hangs; `watchdog` starts it as a script. It imports nothing of sftkit.

Descriptors: 0 is the memory that the watched process writes to, 1 a pipe that closes when it ends, 2 its stderr.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

MEMORY = 4096
"""Bytes of the shared memory: three integers of 8 bytes (see `watchdog`), and from `PATH_AT` a path in UTF-8."""
PATH_AT = 64

_LOOK_EVERY = 0.5  # seconds
_TIME_TO_END = 5.0  # seconds


def watch(pid: int, seconds: float, report: str, exits_on_hangup: bool) -> None:
    """Watch a process until it ends, or end it.

    Args:
        pid: the process.
        seconds: how much processor time one step may take.
        report: a file for the error message; "" to write it to stderr.
        exits_on_hangup: whether SIGHUP ends the process with exit code 1.
    """
    memory = mmap.mmap(0, MEMORY)
    slots = memoryview(memory)[:PATH_AT].cast("q")
    seen, since = (0, 0), 0.0
    while not select.select([1], [], [], _LOOK_EVERY)[0]:
        now, used = (slots[0], slots[1]), _processor_seconds(pid)
        if not now[0] or now != seen:
            seen, since = now, used
        elif used - since > seconds:
            path, row = memory[PATH_AT:].split(b"\0", 1)[0].decode(errors="replace"), slots[2]
            _say(_message(path, row, seconds), report)
            end(pid, exits_on_hangup=exits_on_hangup)
            return


def end(pid: int, *, exits_on_hangup: bool) -> None:
    """End a process: ask it with SIGHUP if that gives its exit code 1, otherwise kill it."""
    with suppress(ProcessLookupError):  # it has just ended
        if exits_on_hangup:
            os.kill(pid, signal.SIGHUP)
            if select.select([1], [], [], _TIME_TO_END)[0]:
                return  # its number may already be that of another process
        os.kill(pid, signal.SIGKILL)


def _message(path: str, row: int, seconds: float) -> str:
    place = (f"{path}:{row}: " if row else f"{path}: ") if path else ""
    rest = ", or leave this row out" if row else ""
    return (
        f"{place}the template took more than {seconds:.3g} s of processor time in one step, which cannot be "
        f"interrupted; fix the template{rest}"
    )


def _say(message: str, report: str) -> None:
    with suppress(OSError):  # the process must end in any case
        if report:
            Path(report).write_text(message, encoding="utf-8")
        else:
            os.write(2, f"error: {message}\n".encode(errors="replace"))


def _processor_seconds(pid: int) -> float:
    """Processor time that a process has used, in seconds; of all its threads."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        time.sleep(_LOOK_EVERY)
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4] == "1")
