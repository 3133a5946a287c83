"""One run at a time below a URL, where no system keeps locks that go with their processes.

The lock is a file that its holder writes anew every few seconds. One that is not written any more was left by a run
that was killed, and is taken over.
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
"""Seconds after which the holder of a lock writes it anew."""

STALE_AFTER_SECONDS = 20.0
"""Seconds without a change after which a lock counts as left behind."""

_ROUNDS = 3  # of taking over: others may be as quick


@dataclass(frozen=True)
class _Holder:
    """What a lock says of who holds it."""

    run: str
    machine: str
    process: int


class Lease:
    """A lock that this process holds, and writes anew while it does."""

    def __init__(self, lock: RemotePath, place: RemotePath) -> None:
        self._lock = lock
        self._place = place
        self._holder = _Holder(uuid.uuid4().hex, _machine(), os.getpid())
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def check(self) -> None:
        """See that the lock is still ours.

        Raises:
            OutputError: another run has taken it over.
        """
        found = _read(self._lock)
        if found is None or found[0] != self._holder:
            raise OutputError(
                f"output_dir {self._place}: another run has begun to write there, so this one writes nothing more"
            )

    def take(self) -> None:
        """Take the lock, from a dead run too.

        Raises:
            OutputError: another run holds it.
            OSError: it cannot be written.
        """
        for _ in range(_ROUNDS):
            if create_exclusively(self._lock, self._text(0)):
                self._beating.start()
                return
            if not self._is_left():
                break
            remove(self._lock)
        raise OutputError(f"output_dir {self._place}: another run is writing there; wait for it, or choose another")

    def release(self) -> None:
        """Let go of the lock."""
        self._ended.set()
        self._beating.join()
        with suppress(OutputError, OSError):
            self.check()
            remove(self._lock)

    def _is_left(self) -> bool:
        """Whether the lock that is there was left by a run that is dead."""
        found = _read(self._lock)
        if found is None:
            return True
        if found[0].machine == self._holder.machine and not _is_alive(found[0].process):
            return True
        _log.warning(
            "%s: a lock is there; looking for %.0f s whether its run is alive", self._place, STALE_AFTER_SECONDS
        )
        end = time.monotonic() + STALE_AFTER_SECONDS
        while time.monotonic() < end:
            time.sleep(min(HEARTBEAT_SECONDS / 5, STALE_AFTER_SECONDS / 5))
            if _read(self._lock) != found:
                return False
        return True

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with suppress(OutputError, OSError):  # a beat that is lost matters to nobody
                self.check()
                beat += 1
                write_bytes(self._lock, self._text(beat))

    def _text(self, beat: int) -> bytes:
        return json.dumps([self._holder.__dict__, beat]).encode()


@contextmanager
def hold_lease(lock: RemotePath, place: RemotePath) -> Iterator[Lease]:
    """Hold a lock while the block runs.

    Args:
        lock: its file.
        place: what is locked, for the error.

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
    """Who holds a lock, and how often it was written; None where there is none that we wrote."""
    try:
        holder, beat = json.loads(read_bytes(lock))
        return _Holder(**holder), beat
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return None


def _machine() -> str:
    """What processes have in common that see each other by their numbers; where that cannot be told, nothing."""
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
