"""The file system behind a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

_SCHEME = "://"
_LOCAL = "file://"


@dataclass(frozen=True)
class RemotePath:
    """A URL such as `s3://bucket/folder/name`, and the options of the file system behind it.

    A name and nothing more: it opens nothing, holds no connection, and goes to any process as it is.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}", self.options)

    @property
    def name(self) -> str:
        """What stands behind the last slash."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The name without its last ending."""
        return self._path.stem

    @property
    def parent(self) -> RemotePath:
        """The folder that it is in."""
        return RemotePath(self.url.rstrip("/").rpartition("/")[0], self.options)

    def with_name(self, name: str) -> RemotePath:
        """Another file of the same folder."""
        return self.parent / name

    @property
    def _path(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition(_SCHEME)[2])


AnyPath: TypeAlias = Path | RemotePath
"""Where a file or a folder is."""


def is_url(path: str) -> bool:
    """Whether a path is an fsspec URL rather than a local path."""
    return _SCHEME in path


def relative_name(path: AnyPath, folder: AnyPath) -> str:
    """A file's name within a folder that it is below, with slashes; its own name where it is not below it."""
    if isinstance(path, RemotePath):
        root = f"{str(folder).rstrip('/')}/"
        return path.url.removeprefix(root) if path.url.startswith(root) else path.name
    below = isinstance(folder, Path) and path != folder and path.is_relative_to(folder)
    return path.relative_to(folder).as_posix() if below and isinstance(folder, Path) else path.name


def parse_path(path: str, storage_options: Mapping[str, Any] | None = None) -> AnyPath:
    """Where a path that the user gave leads to.

    Args:
        path: a local path (`~` is the home directory) or an fsspec URL.
        storage_options: as in a config; see `filesystem_options`.
    """
    if path.startswith(_LOCAL):
        return Path(path.removeprefix(_LOCAL))
    if is_url(path):
        return RemotePath(path.rstrip("/"), filesystem_options(path, storage_options or {}))
    return Path(path).expanduser()


def filesystem_options(url: str, storage_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the file system behind a URL: those for all, and those under the name of its protocol."""
    if not storage_options:
        return {}
    from fsspec import available_protocols

    protocols = set(available_protocols())
    shared = {name: value for name, value in storage_options.items() if name not in protocols}
    own = storage_options.get(url.partition(_SCHEME)[0], {})
    return {**shared, **own}


_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def filesystem_for(place: RemotePath) -> tuple[Any, str]:
    """The fsspec file system of a place, and the path there. fsspec keeps one for each process and its options.

    Raises:
        ImportError: the package for this protocol is not installed; its message names it.
        ValueError: there is no such protocol.
    """
    import fsspec

    try:
        system, path = fsspec.url_to_fs(place.url, **place.options)
    except ImportError as error:
        extra = _EXTRAS.get(place.url.partition("://")[0])
        raise ImportError(f"{error}" if extra is None else f"pip install 'sftkit[{extra}]'") from None
    return system, path
