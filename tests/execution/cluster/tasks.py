"""Functions that nodes run in test_ray_cluster."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from sftkit.errors import DataError


def wait_at_gate(row: dict[str, Any], gate: str) -> dict[str, Any]:
    """Hold the rows from a number on while the file `gate` holds that number."""
    while (first := _first_held(Path(gate))) is not None and row["id"] >= first:
        time.sleep(0.02)
    return row


def _first_held(gate: Path) -> int | None:
    try:
        return int(gate.read_text())
    except FileNotFoundError:
        return None


def square(number: int) -> int:
    if number == 13:
        raise DataError("in.jsonl:13: an unlucky row; leave it out")
    if number == 28:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/somewhere")
    if number == 666:
        os._exit(1)
    return number * number
