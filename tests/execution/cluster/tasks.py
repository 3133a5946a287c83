"""Functions that nodes run in test_ray_cluster."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from sftkit.errors import DataError


def wait_at_gate(row: dict[str, Any], gate: str) -> dict[str, Any]:
    """Wait while a staging directory holds as many units as allowed; the link `gate` leads to `DIRECTORY:UNITS`."""
    while _is_closed(gate):
        time.sleep(0.02)
    return row


def _is_closed(gate: str) -> bool:
    try:
        # A file that a user function reads must not change during a run. A link is not read.
        staging, _, units = str(Path(gate).readlink()).rpartition(":")
    except FileNotFoundError:
        return False
    return staged_in(Path(staging)) >= int(units)


def staged_in(staging: Path) -> int:
    return len(list(staging.glob("unit-*.account.arrow")))


def square(number: int) -> int:
    if number == 13:
        raise DataError("in.jsonl:13: an unlucky row; leave it out")
    if number == 28:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/somewhere")
    if number == 666:
        os._exit(1)
    return number * number
