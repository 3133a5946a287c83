"""Local paths and URLs, and the file system behind a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from sftkit.redaction import redact_url

_SCHEME = "://"
_LOCAL = "file://"


@dataclass(frozen=True)
class RemotePath:
    """A URL such as `s3://bucket/folder/name`, and the options of its file system.

    It is only a name: it opens nothing, holds no connection, and can be sent to any process.
    """

    url: str
    """The URL, with its protocol."""
    options: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        """The URL without its credentials, for messages."""
        return redact_url(self.url)

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}", self.options)

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return self._path.stem

    @property
    def parent(self) -> RemotePath:
        """The parent folder."""
        return RemotePath(self.url.rstrip("/").rpartition("/")[0], self.options)

    def with_name(self, name: str) -> RemotePath:
        """A file in the same folder."""
        return self.parent / name

    @property
    def _path(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition(_SCHEME)[2])


AnyPath: TypeAlias = Path | RemotePath
"""The location of a file or folder."""


def is_url(path: str) -> bool:
    """Whether a path is an fsspec URL.

    Example:
        >>> is_url("s3://bucket/rows.jsonl"), is_url("rows.jsonl")
        (True, False)
    """
    return _SCHEME in path


def relative_name(path: AnyPath, folder: AnyPath) -> str:
    """The name of a file relative to a folder, with slashes; its plain name if it is not below the folder."""
    if isinstance(path, RemotePath):
        root = f"{folder.url.rstrip('/')}/" if isinstance(folder, RemotePath) else "/"
        return path.url.removeprefix(root) if path.url.startswith(root) else path.name
    below = isinstance(folder, Path) and path != folder and path.is_relative_to(folder)
    return path.relative_to(folder).as_posix() if below and isinstance(folder, Path) else path.name


def parse_path(path: str, storage_options: Mapping[str, Any] | None = None) -> AnyPath:
    """Parse a path that the user gave.

    Args:
        path: a local path (`~` is the home directory) or an fsspec URL.
        storage_options: the config key; see `filesystem_options`.
    """
    if path.startswith(_LOCAL):
        return Path(path.removeprefix(_LOCAL))
    if is_url(path):
        return RemotePath(path.rstrip("/"), filesystem_options(path, storage_options or {}))
    return Path(path).expanduser()


def filesystem_options(url: str, storage_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for the file system of a URL: those for all protocols, and those under the name of its protocol."""
    if not storage_options:
        return {}
    from fsspec import available_protocols

    protocols = set(available_protocols())
    shared = {name: value for name, value in storage_options.items() if name not in protocols}
    own = storage_options.get(url.partition(_SCHEME)[0], {})
    return {**shared, **own}


_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def filesystem_for(place: RemotePath) -> tuple[Any, str]:
    """The fsspec file system of a place, and the path in it. fsspec caches one per process and set of options.

    Raises:
        ImportError: the package for this protocol is not installed; the message names it.
        ValueError: the protocol is unknown.
    """
    import fsspec

    try:
        system, path = fsspec.url_to_fs(place.url, **place.options)
    except ImportError as error:
        extra = _EXTRAS.get(place.url.partition("://")[0])
        raise ImportError(f"{error}" if extra is None else f"pip install 'sftkit[{extra}]'") from None
    return system, path
