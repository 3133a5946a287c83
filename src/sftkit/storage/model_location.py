"""Where a model or tokenizer is: a local directory, a part of the bundled sample, or a repository of the Hub."""

from __future__ import annotations

import difflib
import json
import os
import re
from contextlib import suppress
from pathlib import Path

from sftkit.sample import sample_path
from sftkit.storage.hub_revision import revision_directory, revision_problem, split_revision

_HUB_ID = re.compile(r"[A-Za-z0-9](?:[\w.-]*\w)?(?:/[A-Za-z0-9](?:[\w.-]*\w)?)?", re.ASCII)
"""`name` or `owner/name`, as the Hub allows them."""

_ADAPTER_CONFIG = "adapter_config.json"
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def model_location(name: str) -> str:
    """Return what transformers loads a model or tokenizer from: `sample:` and `~` become the directories they mean.

    Args:
        name: directory, `sample:NAME` or Hub id; a Hub id is returned unchanged. A Hub id with a revision
            (`owner/name@revision`) becomes its directory in the cache, which has everything except weights.

    Example:
        >>> model_location("org/model"), model_location("./model")
        ('org/model', './model')
    """
    location = str(sample_path(name))
    if location.startswith("~"):
        return str(Path(location).expanduser())
    repository, revision = split_revision(location)
    if revision is not None:
        with suppress(Exception):  # `location_problem` says what is wrong
            return revision_directory(repository, revision)
    return location


def location_problem(name: str) -> str | None:
    """Return why nothing can be loaded from a name, found without loading anything; None if something may be there.

    A Hub id passes: whether the Hub has such a repository is only known when it is loaded.

    Example:
        >>> location_problem("./nowhere")
        'no such directory; correct the path'
        >>> location_problem("org/model") is None
        True
    """
    problem = revision_problem(name)
    if problem is not None:
        return problem
    location = model_location(name)
    if not location.strip():
        return "the name is empty; give a directory or a Hub id"
    if "://" in location:
        return "it is a URL; download the files, and give their directory"
    path = Path(location)
    with suppress(OSError):  # may be forbidden, which transformers reports
        if path.is_dir():
            return None
        if path.exists():
            return "it is a file; give the directory with the files of the model"
    if _HUB_ID.fullmatch(location):
        return None
    return f"no such directory{_similar_names(path)}; correct the path"


def hub_problem(name: str, error: BaseException) -> str | None:
    """Return why a Hub id cannot be loaded, in words that also fit a path with a typo.

    Args:
        name: as the user gave it.
        error: what transformers raised for it.

    Returns:
        None if the name is a directory, or if the repository was found, so that the error is about its content.
    """
    location = model_location(name)
    if Path(location).is_dir() or not _HUB_ID.fullmatch(location):
        return None
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    missing = f"there is no such directory{_similar_names(Path(location))}"
    causes = _chain(error)
    if any(isinstance(each, GatedRepoError) for each in causes):
        return f"the Hub restricts access to it: ask for it at https://huggingface.co/{name}, then run `hf auth login`"
    if any(isinstance(each, RepositoryNotFoundError) for each in causes):
        return (
            f"{missing}, and the Hub has no repository of this name; correct it, or run `hf auth login` if the "
            "repository is private"
        )
    if not any(isinstance(each, (LocalEntryNotFoundError, ConnectionError)) for each in causes):
        return None
    variable = next((name for name in _OFFLINE if os.environ.get(name, "0").lower() not in ("", "0", "false")), None)
    if variable is None:
        return (
            f"{missing}, and the Hub cannot be reached to look for a repository of this name; correct the path, or "
            "check the network"
        )
    return (
        f"{missing}, nor a repository of this name in the local cache of the Hub ({variable} is set, so that nothing "
        "is downloaded); correct the path, or unset the variable"
    )


def adapter_base(name: str) -> str | None:
    """Return the model that the LoRA adapter in a directory was trained for; None if the directory holds no adapter.

    The result is an empty text if the adapter does not say it.
    """
    config = Path(model_location(name)) / _ADAPTER_CONFIG
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return ""
    base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    return base if isinstance(base, str) else ""


def _similar_names(path: Path) -> str:
    """Return the name of a directory that a missing one may be a typo of, as a hint."""
    try:
        names = sorted(each.name for each in path.parent.iterdir() if each.is_dir())
    except OSError:
        return ""
    found = difflib.get_close_matches(path.name, names, n=1)
    return f" (did you mean {str(path.parent / found[0])!r}?)" if found else ""


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception and those that caused it."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found
