"""Atomic writes, and other operations on local and remote files.

A local file is written under a temporary name, synced to disk and renamed. Object stores cannot rename. A remote file
is written on this machine and then uploaded as a whole: it appears only when the upload is complete.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from sftkit.storage.paths import AnyPath, RemotePath, filesystem_for
from sftkit.storage.retry import with_retries
from sftkit.storage.streams import open_binary

T = TypeVar("T")

TEMPORARY_SUFFIX = ".tmp"
"""Suffix of files that are still being written."""

_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
_MAX_BATCH = 1000  # files removed by one request


@contextmanager
def atomic_replace(target: AnyPath, run: str = "") -> Iterator[Path]:
    """Replace a file atomically: yield a local path to write to, which becomes the target if the block does not raise.

    Args:
        target: the file to replace or create.
        run: a unique part of the temporary name, if several processes may write the target at the same time.
    """
    if isinstance(target, RemotePath):
        with _unnamed_file() as temporary:
            yield temporary
            _with_filesystem(target, lambda system, path: system.put_file(str(temporary), path))
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
    """The path of a file while it is being written; `run` as in `atomic_replace`."""
    return target.with_name(f".{target.name}{run and '.'}{run}{TEMPORARY_SUFFIX}")


def sync_file(path: Path) -> None:
    """Sync the contents of a file to disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Sync a directory to disk, so that files renamed into it survive a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: AnyPath) -> None:
    """Create a directory and its parents if missing. Object stores need none."""
    if isinstance(path, Path):
        path.mkdir(parents=True, exist_ok=True)


def file_size(place: AnyPath) -> int:
    """Size of a regular file in bytes; -1 if there is none, or it cannot be accessed, or the name is invalid."""
    try:
        if isinstance(place, RemotePath):
            return int(_info(place)["size"] or 0)
        status = place.stat()
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def file_version(place: AnyPath) -> tuple[int, int | str]:
    """The size of a file, and its times (ns), or the version that the store gives. Changes with the file.

    Raises:
        OSError: the file cannot be accessed.
    """
    if isinstance(place, RemotePath):
        info = _info(place)
        return int(info["size"] or 0), str(next((info[name] for name in _VERSIONS if info.get(name)), ""))
    found = place.stat()
    return found.st_size, f"{found.st_mtime_ns} {found.st_ctime_ns}"  # programs can set the first, not the second


def sha256_of_file(place: AnyPath) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open_binary(place) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # it has `readinto`


def known_sha256(path: Path) -> str:
    """The sha256 of a local file, in hexadecimal; it is computed once for each of its versions.

    Raises:
        OSError: the file cannot be read.
    """
    found = path.stat()
    return _known_sha256(path, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))


@lru_cache(maxsize=256)
def _known_sha256(path: Path, version: tuple[int, ...]) -> str:
    return sha256_of_file(path)


def read_bytes(place: AnyPath) -> bytes:
    """Read a whole file.

    Raises:
        OSError: it cannot be read; FileNotFoundError if it does not exist.
    """
    if isinstance(place, RemotePath):
        return _with_filesystem(place, lambda system, path: bytes(system.cat_file(path)))
    return place.read_bytes()


def read_ranges(place: RemotePath, ranges: list[tuple[int, int]]) -> list[bytes]:
    """Read several byte ranges (start, stop) of a remote file in parallel.

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

    return _with_filesystem(place, fetch) if ranges else []


def write_text(target: AnyPath, text: str, run: str = "") -> None:
    """Write a text file atomically, in UTF-8. Lone surrogates become backslash escapes."""
    with atomic_replace(target, run) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(place: RemotePath, content: bytes) -> None:
    """Write a small remote file."""
    _with_filesystem(place, lambda system, path: system.pipe_file(path, content))


def copy(source: RemotePath, target: RemotePath) -> None:
    """Copy a remote file within its store, atomically and without transferring it to this machine."""
    _with_filesystem(target, lambda system, path: system.cp_file(filesystem_for(source)[1], path))


def create_exclusively(place: RemotePath, content: bytes) -> bool:
    """Create a remote file unless it exists. Return whether this call created it."""
    try:
        _with_filesystem(place, lambda system, path: system.pipe_file(path, content, mode="create"))
    except FileExistsError:
        return False
    return True


def remove(*places: AnyPath) -> None:
    """Remove files; missing ones are ignored.

    Raises:
        OSError: a file exists and cannot be removed.
    """
    remote = [place for place in places if isinstance(place, RemotePath)]
    for place in places:
        if isinstance(place, Path):
            place.unlink(missing_ok=True)
    for start in range(0, len(remote), _MAX_BATCH):
        _remove_remote(remote[start : start + _MAX_BATCH])


def file_sizes(folder: AnyPath) -> dict[str, int]:
    """Names and sizes (bytes) of the files directly in a folder; empty if the folder does not exist.

    Raises:
        OSError: the folder cannot be listed.
    """
    if isinstance(folder, RemotePath):
        return _listed(folder, lambda system, path: system.ls(path, detail=True))
    try:
        return {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def files_below(folder: Path) -> list[str]:
    """Relative names, with slashes, of the files and links below a local folder, sorted; links are not followed.

    Raises:
        OSError: the folder cannot be listed.
    """
    found: list[str] = []
    for base, folders, names in os.walk(folder, onerror=_raise_unless_missing):
        leaves = [*names, *(name for name in folders if Path(base, name).is_symlink())]
        found += (Path(base, name).relative_to(folder).as_posix() for name in leaves)
    return sorted(found)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def file_sizes_recursive(folder: RemotePath) -> dict[str, int]:
    """Relative names and sizes (bytes) of all files below a remote folder, sorted by name."""
    return _listed(folder, lambda system, path: system.find(path, detail=True).values())


def _with_filesystem(place: RemotePath, act: Callable[[Any, str], T]) -> T:
    """Call `act` with the file system and path of a place, with retries."""
    return with_retries(place, lambda: act(*filesystem_for(place)))


def _listed(folder: RemotePath, entries: Callable[[Any, str], Iterable[Mapping[str, Any]]]) -> dict[str, int]:
    """Relative names and sizes of the files among the entries of a folder; empty if it does not exist."""

    def look(system: Any, path: str) -> dict[str, int]:
        system.invalidate_cache()
        root = path.rstrip("/") + "/"
        try:
            found = {entry["name"]: entry for entry in entries(system, path) if entry.get("type") == "file"}
        except FileNotFoundError:
            return {}
        below = sorted(name for name in found if name.startswith(root) and not name.endswith("/"))
        return {name.removeprefix(root): int(found[name]["size"] or 0) for name in below}

    return _with_filesystem(folder, look)


@contextmanager
def _unnamed_file() -> Iterator[Path]:
    """The path of a temporary file that vanishes with this process, even if it is killed (on Linux)."""
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

    info = _with_filesystem(place, look)
    if info.get("type") == "directory":
        raise IsADirectoryError(f"{place}: is a folder")
    return info


def _remove_remote(places: Sequence[RemotePath]) -> None:
    paths = [filesystem_for(place)[1] for place in places]

    def act(system: Any, _: str) -> None:
        try:
            system.rm(paths)
        except FileNotFoundError:  # some file systems raise this, object stores do not
            for path in paths:
                with suppress(FileNotFoundError):
                    system.rm_file(path)
        system.invalidate_cache()

    _with_filesystem(places[0], act)
