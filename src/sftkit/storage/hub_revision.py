"""A revision of a model on the Hub, written after its name: `owner/name@revision`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)@([\w./-]+)", re.ASCII)

_WEIGHTS = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.gguf",
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.onnx_data",
    "original/*",
)
"""Files that only loading a model needs; transformers then chooses among them."""


def split_revision(name: str) -> tuple[str, str | None]:
    """Return the name of a model without its revision, and the revision; None if it has none.

    Args:
        name: directory or Hub id; an existing path is taken as it is.

    Example:
        >>> split_revision("org/model@v1.0"), split_revision("org/model")
        (('org/model', 'v1.0'), ('org/model', None))
    """
    found = _NAME.fullmatch(name)
    if found is None or Path(name).exists():
        return name, None
    return found[1], found[2]


@cache
def revision_directory(repository: str, revision: str) -> str:
    """Download a revision of a repository, except weights, unless it is in the cache of the Hub.

    Returns:
        The directory in the cache.

    Raises:
        Exception: whatever the Hub's client raises; see `revision_problem`.
    """
    from huggingface_hub import snapshot_download

    return str(snapshot_download(repository, revision=revision, ignore_patterns=list(_WEIGHTS)))


def revision_problem(name: str) -> str | None:
    """Return why the revision that a name ends with cannot be used; None if it can, or if the name has none."""
    repository, revision = split_revision(name)
    if revision is None:
        return None
    try:
        revision_directory(repository, revision)
    except Exception as error:
        return _reason(repository, revision, error)
    return None


def _reason(repository: str, revision: str, error: Exception) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    if isinstance(error, RevisionNotFoundError):
        return f"{repository} has no revision {revision!r} on the Hub; correct what follows the @"
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"the revision {revision!r} of {repository} is not in the local cache of the Hub, and the Hub cannot be"
            " reached to download it"
        )
    return f"the revision {revision!r} of {repository} cannot be downloaded: {' '.join(str(error).split())[:300]}"
