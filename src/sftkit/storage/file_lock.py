"""A lock file in a local directory, so that only one run at a time writes there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from sftkit.errors import OutputError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_ATTEMPTS = 6  # more than one, because the previous holder may just have removed the file
_INTERVAL = 0.05  # seconds


@contextmanager
def hold_lock(path: Path, place: Path) -> Iterator[None]:
    """Hold a lock file while the block runs. The system releases the lock when the process ends, however it ends.

    Args:
        path: The lock file. The holder may remove it; otherwise it stays.
        place: The locked directory, for the error message.

    Raises:
        OutputError: Another process holds the lock.
        OSError: The file cannot be created, or its file system has no locks.
    """
    from filelock import FileLock, Timeout

    # A soft lock, filelock's substitute on file systems without flock, would outlive a run that is killed.
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        _acquire(lock, path.parent)
    except Timeout:
        raise OutputError(f"output_dir {place}: another run is writing there; wait for it, or choose another") from None
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: BaseFileLock, folder: Path) -> None:
    from filelock import Timeout

    for attempt in count(1):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
            return
        except FileNotFoundError:  # the previous holder removed the folder after it was created here
            continue
        except Timeout:
            if attempt >= _ATTEMPTS:
                raise
            time.sleep(_INTERVAL)
