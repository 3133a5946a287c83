"""The file system behind a URL."""

from __future__ import annotations

from typing import Any

from sftkit.storage.paths import RemotePath

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def system_of(place: RemotePath) -> tuple[Any, str]:
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
