"""Reports of what worker processes have done of their tasks. Each process overwrites a few bytes in a file of its own.

A pipe or a lock that they share would be left unusable by a worker that is killed while it holds it.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sftkit.core.progress import Done, Report

_ENDING = ".done"
_NUMBERS = struct.Struct("<5q")  # index of the task, steps, rows, tokens, and the sum of these four
_SECONDS_BETWEEN_REPORTS = 0.5


def limited(report: Report) -> Report:
    """Return a function that passes on the first report of a task, and later ones at most twice a second."""
    last = -_SECONDS_BETWEEN_REPORTS

    def report_now_and_then(done: Done) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_REPORTS:
            last = now
            report(done)

    return report_now_and_then


class ReportFiles:
    """The reports of the worker processes of one pool."""

    def __init__(self, folder: Path) -> None:
        """Describe them.

        Args:
            folder: a folder that the pool and its workers share.
        """
        self._folder = folder
        self._next_look = 0.0

    def clear(self) -> None:
        """Remove the reports of an earlier run, whose tasks are others."""
        for path in self._folder.glob(f"*{_ENDING}"):
            path.unlink(missing_ok=True)

    def write(self, number: int, done: Done) -> None:
        """Overwrite the report of this process. A report that cannot be written is left out.

        Args:
            number: index of the task.
            done: what has been done of it.
        """
        values = (number, done.steps, done.rows, done.tokens)
        with suppress(OSError):  # such as a full disk
            # Replacing the file instead would take ext4 milliseconds, because it then writes it to the disk.
            file = os.open(self._folder / f"{os.getpid()}{_ENDING}", os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(file, _NUMBERS.pack(*values, sum(values)))
            finally:
                os.close(file)

    def read(self) -> Iterator[tuple[int, Done]]:
        """Yield the index of a task and its report, for each process; nothing if the last look was just before.

        A report that is being written while it is read is left out.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _SECONDS_BETWEEN_REPORTS
        for path in self._folder.glob(f"*{_ENDING}"):
            with suppress(OSError, struct.error):
                *values, total = _NUMBERS.unpack(path.read_bytes())
                if sum(values) == total:
                    number, *counts = values
                    yield number, Done(*counts)
