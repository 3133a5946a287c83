"""One run at a time in an output directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftkit.errors import OutputError


@contextmanager
def hold_lock(path: Path, place: Path) -> Iterator[None]:
    """Hold a lock file while the block runs. The system lets go of it with the process, however that ends.

    Args:
        path: of the lock file, which may be removed by the one who holds it.
        place: what is locked, for the error.

    Raises:
        OutputError: another process holds it.
        OSError: it cannot be made.
    """
    descriptor = _held(path)
    try:
        if descriptor is None:
            raise OutputError(f"output_dir {place}: another run is writing there; wait for it, or choose another")
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _held(path: Path) -> int | None:
    """The lock file's descriptor once the lock is ours, or None."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # the run that held it removed it meanwhile: this one is of no use to others


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)
