"""Files that are there as a whole or not at all, and what they hold in one number.

Local files are written aside, brought to disk and renamed. Object stores know no renaming: there a file is written on
this machine and sent as a whole, which is there when it has arrived, and not before.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sftkit.storage.paths import AnyPath, RemotePath, filesystem_for
from sftkit.storage.retry import with_retries
from sftkit.storage.streams import open_binary

T = TypeVar("T")

TEMPORARY_SUFFIX = ".tmp"
"""What the name of a file ends with that is still being written."""

_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
_AT_ONCE = 1000  # names


@contextmanager
def atomic_replace(target: AnyPath, run: str = "") -> Iterator[Path]:
    """A local path whose file takes the target's place, complete and kept, when the block is left without an error.

    run: what sets its name apart from that of others who may write the same file at the same time.
    """
    if isinstance(target, RemotePath):
        with _nameless() as temporary:
            yield temporary
            _at(target, lambda system, path: system.put_file(str(temporary), path))
        return
    temporary = temporary_path(target, run)
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(target)
        sync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(target: Path, run: str = "") -> Path:
    """Where a file stands while it is written; `run` as in `atomic_replace`."""
    return target.with_name(f".{target.name}{run and '.'}{run}{TEMPORARY_SUFFIX}")


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


def make_directory(path: AnyPath) -> None:
    """Let there be a folder; an object store has none, and needs none."""
    if isinstance(path, Path):
        path.mkdir(parents=True, exist_ok=True)


def file_size(place: AnyPath) -> int:
    """Bytes of a regular file; -1 where there is none that can be looked at, or could be (names may be anybody's)."""
    try:
        if isinstance(place, RemotePath):
            return int(_info(place)["size"] or 0)
        status = place.stat()
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def file_version(place: AnyPath) -> tuple[int, int | str]:
    """What changes when a file does: its size, and its time (ns) or what the store has for it.

    Raises:
        OSError: it cannot be looked at.
    """
    if isinstance(place, RemotePath):
        info = _info(place)
        return int(info["size"] or 0), str(next((info[name] for name in _VERSIONS if info.get(name)), ""))
    found = place.stat()
    return found.st_size, found.st_mtime_ns


def sha256_of_file(place: AnyPath) -> str:
    """sha256 of a file's bytes."""
    with open_binary(place) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # it reads into buffers


def read_bytes(place: AnyPath) -> bytes:
    """All of a file.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is none.
    """
    if isinstance(place, RemotePath):
        return _at(place, lambda system, path: bytes(system.cat_file(path)))
    return place.read_bytes()


def read_ranges(place: RemotePath, ranges: list[tuple[int, int]]) -> list[bytes]:
    """Some stretches (start, stop) of a remote file, asked for at the same time.

    Raises:
        OSError: they cannot be read.
    """

    def fetch(system: Any, path: str) -> list[bytes]:
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        parts = system.cat_ranges([path] * len(ranges), starts, stops)
        failure = next((part for part in parts if isinstance(part, Exception)), None)
        if failure is not None:
            raise failure
        found = [bytes(part) for part in parts]
        if [len(part) for part in found] != [stop - start for start, stop in ranges]:
            raise OSError("it ends too early")
        return found

    return _at(place, fetch) if ranges else []


def write_text(target: AnyPath, text: str, run: str = "") -> None:
    """Let a file hold a text (UTF-8; what UTF-8 cannot hold as backslashes), as a whole or not at all."""
    with atomic_replace(target, run) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(place: RemotePath, content: bytes) -> None:
    """Let a small remote file hold something."""
    _at(place, lambda system, path: system.pipe_file(path, content))


def copy(source: RemotePath, target: RemotePath) -> None:
    """Let the store copy a file, which takes nothing through this machine; it is there as a whole or not at all."""
    _at(target, lambda system, path: system.cp_file(filesystem_for(source)[1], path))


def create_exclusively(place: RemotePath, content: bytes) -> bool:
    """Make a remote file if there is none; whether this call made it."""
    try:
        _at(place, lambda system, path: system.pipe_file(path, content, mode="create"))
    except FileExistsError:
        return False
    return True


def remove(*places: AnyPath) -> None:
    """Remove files, those that are there.

    Raises:
        OSError: one is there and cannot be removed.
    """
    remote = [place for place in places if isinstance(place, RemotePath)]
    for place in places:
        if isinstance(place, Path):
            place.unlink(missing_ok=True)
    for start in range(0, len(remote), _AT_ONCE):
        _remove_remote(remote[start : start + _AT_ONCE])


def file_sizes(folder: AnyPath) -> dict[str, int]:
    """Names and sizes in bytes of the files right in a folder; none where there is no such folder.

    Raises:
        OSError: the folder cannot be looked into.
    """
    if isinstance(folder, RemotePath):
        return _listed(folder, lambda system, path: system.ls(path, detail=True))
    try:
        return {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    except FileNotFoundError:
        return {}


def file_sizes_recursive(folder: RemotePath) -> dict[str, int]:
    """Names, relative to a remote folder, and sizes in bytes of all files below it, by name."""
    return _listed(folder, lambda system, path: system.find(path, detail=True).values())


def _at(place: RemotePath, act: Callable[[Any, str], T]) -> T:
    """What comes of doing something with a file system and a path there, tried until it succeeds (`with_retries`)."""
    return with_retries(place, lambda: act(*filesystem_for(place)))


def _listed(folder: RemotePath, entries: Callable[[Any, str], Iterable[Mapping[str, Any]]]) -> dict[str, int]:
    """Names, relative to a folder, and sizes of the files among its entries; none where there is no such folder."""

    def look(system: Any, path: str) -> dict[str, int]:
        system.invalidate_cache()
        root = path.rstrip("/") + "/"
        try:
            found = {entry["name"]: entry for entry in entries(system, path) if entry.get("type") == "file"}
        except FileNotFoundError:
            return {}
        below = sorted(name for name in found if name.startswith(root) and not name.endswith("/"))
        return {name.removeprefix(root): int(found[name]["size"] or 0) for name in below}

    return _at(folder, look)


@contextmanager
def _nameless() -> Iterator[Path]:
    """A path of a local file that is gone with this process, however that ends."""
    if sys.platform == "linux":
        with tempfile.TemporaryFile() as file:
            yield Path(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory(prefix="sftkit-") as folder:
        yield Path(folder, "file")


def _info(place: RemotePath) -> Any:
    def look(system: Any, path: str) -> Any:
        system.invalidate_cache(path)
        return system.info(path)

    info = _at(place, look)
    if info.get("type") == "directory":
        raise IsADirectoryError(f"{place}: is a folder")
    return info


def _remove_remote(places: Sequence[RemotePath]) -> None:
    paths = [filesystem_for(place)[1] for place in places]

    def act(system: Any, _: str) -> None:
        try:
            system.rm(paths)
        except FileNotFoundError:  # some file systems say so, object stores do not
            for path in paths:
                with suppress(FileNotFoundError):
                    system.rm_file(path)
        system.invalidate_cache()

    _at(places[0], act)
