"""Files that are there as a whole or not at all, and what they hold in one number."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".tmp"
"""What the name of a file ends with that is still being written."""


@contextmanager
def replacing(target: Path, run: str = "") -> Iterator[Path]:
    """A path beside the target whose file takes the target's place, complete and on disk, when the block is left.

    run: what sets its name apart from that of others who may write the same file at the same time.
    """
    temporary = aside(target, run)
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(target)
        sync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def aside(target: Path, run: str = "") -> Path:
    """Where a file stands while it is written; `run` as in `replacing`."""
    return target.with_name(f".{target.name}{run and '.'}{run}{UNFINISHED}")


def sync_file(path: Path) -> None:
    """Bring what was written to a file to disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to disk: a file that was moved there stays there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(path: Path) -> int:
    """Bytes of a regular file; -1 where there is none that can be looked at, or could be (names may be anybody's)."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def sha256_of_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
