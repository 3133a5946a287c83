"""A lock for remote directories, so that only one run at a time writes there.

Object stores have no locks that end with their process. The lock is a file that its holder rewrites every few seconds;
a file that is no longer rewritten was left by a killed run, and another run takes it over.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sftkit.errors import OutputError
from sftkit.storage.files import create_exclusively, read_bytes, remove, write_bytes
from sftkit.storage.paths import RemotePath

_log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
"""Seconds between two writes of the lock file by its holder."""

STALE_AFTER_SECONDS = 20.0
"""Seconds without a change after which a lock counts as abandoned."""

_ATTEMPTS = 3  # to take over a lock; other runs may try at the same time


@dataclass(frozen=True)
class _Holder:
    """The holder of a lock, as written in its file."""

    run: str
    machine: str
    process: int


class Lease:
    """A lock that this process holds, and whose file it keeps rewriting."""

    def __init__(self, lock: RemotePath, place: RemotePath) -> None:
        self._lock = lock
        self._place = place
        self._holder = _Holder(uuid.uuid4().hex, _machine(), os.getpid())
        self._ended = threading.Event()
        self._heartbeat = threading.Thread(target=self._rewrite, daemon=True)

    def check(self) -> None:
        """Check that this process still holds the lock.

        Raises:
            OutputError: another run has taken it over.
        """
        found = _read(self._lock)
        if found is None or found[0] != self._holder:
            raise OutputError(
                f"output_dir {self._place}: another run has taken over the lock, so this run stops writing"
            )

    def take(self) -> None:
        """Take the lock, also from a dead run.

        Raises:
            OutputError: another run holds it.
            OSError: it cannot be written.
        """
        for _ in range(_ATTEMPTS):
            if create_exclusively(self._lock, self._text(0)):
                self._heartbeat.start()
                return
            if not self._is_abandoned():
                break
            remove(self._lock)
        raise OutputError(f"output_dir {self._place}: another run is writing there; wait for it, or choose another")

    def release(self) -> None:
        """Release the lock."""
        self._ended.set()
        self._heartbeat.join()
        with suppress(OutputError, OSError):
            self.check()
            remove(self._lock)

    def _is_abandoned(self) -> bool:
        """Whether the existing lock was left by a dead run."""
        found = _read(self._lock)
        if found is None:
            return True  # it has just been released
        if found[0].machine == self._holder.machine and not _is_alive(found[0].process):
            return True
        _log.warning(
            "%s: there is a lock; checking for %.0f s whether its run is alive", self._place, STALE_AFTER_SECONDS
        )
        end = time.monotonic() + STALE_AFTER_SECONDS
        while time.monotonic() < end:
            time.sleep(min(HEARTBEAT_SECONDS / 5, STALE_AFTER_SECONDS / 5))
            if _read(self._lock) != found:
                return False
        return True

    def _rewrite(self) -> None:
        beat = 0
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with suppress(OutputError, OSError):  # one missed write does no harm
                self.check()
                beat += 1
                write_bytes(self._lock, self._text(beat))

    def _text(self, beat: int) -> bytes:
        return json.dumps([self._holder.__dict__, beat]).encode()


@contextmanager
def hold_lease(lock: RemotePath, place: RemotePath) -> Iterator[Lease]:
    """Hold a lock while the block runs.

    Args:
        lock: the lock file.
        place: the locked directory, for the error message.

    Raises:
        OutputError: another run holds it.
        OSError: it cannot be written.
    """
    lease = Lease(lock, place)
    lease.take()
    try:
        yield lease
    finally:
        lease.release()


def _read(lock: RemotePath) -> tuple[_Holder, int] | None:
    """The holder of a lock and the number of its writes; None if there is no lock.

    Raises:
        OutputError: the file is not a lock.
    """
    try:
        holder, beat = json.loads(read_bytes(lock))
        return _Holder(**holder), beat
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise OutputError(f"{lock}: is not a lock of sftkit; move it, or choose another output_dir") from None


def _machine() -> str:
    """An id shared by processes that can see each other's process ids; a unique one if this is unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
