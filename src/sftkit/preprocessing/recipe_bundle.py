"""Recipes in other processes: the files that go with a recipe to other machines, and one chat tokenizer per process.

The files are those of the tokenizer and the modules of user functions. Each machine unpacks them once, into a directory
named by their content.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from sftkit.errors import TokenizerError
from sftkit.handlers.registry import function_paths
from sftkit.handlers.user_function import code_files
from sftkit.preprocessing.pipeline.recipe import Recipe
from sftkit.storage.files import atomic_replace, file_size
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.loading.tokenizer_files import tokenizer_file_paths
from sftkit.tokenization.loading.tokenizer_identity import TokenizerIdentity
from sftkit.tokenization.loading.tokenizer_loading import TOKENIZER_CHANGED

_TOKENIZER = "tokenizer"
_MODULES = "modules"


@dataclass(frozen=True)
class RecipeBundle:
    """A recipe and the files that it needs."""

    recipe: Recipe
    files: Mapping[str, bytes]
    """Contents by name: `tokenizer/...` and `modules/...`."""


def bundle_recipe(recipe: Recipe) -> RecipeBundle:
    """Bundle a recipe with the files that it needs from this machine.

    Raises:
        OSError: a file cannot be read.
    """
    files: dict[str, bytes] = {}
    spec = recipe.chat_tokenizer.tokenizer
    for name, path in tokenizer_file_paths(spec.name) if spec is not None else ():
        files[f"{_TOKENIZER}/{name}"] = path.read_bytes()
    for code in (code for function in function_paths(recipe.datasets) for code in code_files(function)):
        files[f"{_MODULES}/{code.name}"] = code.path.read_bytes()
    return RecipeBundle(recipe, files)


def unpack_recipe(bundle: RecipeBundle) -> Recipe:
    """Unpack the files of a bundle, and return the recipe with a tokenizer that is loaded from them.

    Raises:
        TokenizerError: others can write to the directory for the files, or it is a link.
        OSError: the files cannot be written.
    """
    if not bundle.files:
        return bundle.recipe
    folder = _unpack(bundle.files)
    if (folder / _MODULES).is_dir() and str(folder / _MODULES) not in sys.path:
        sys.path.insert(0, str(folder / _MODULES))  # before older copies that this machine may have
    spec = bundle.recipe.chat_tokenizer.tokenizer
    if spec is None or not (folder / _TOKENIZER).is_dir():
        return bundle.recipe
    here = replace(spec, name=str(folder / _TOKENIZER))
    return replace(bundle.recipe, chat_tokenizer=replace(bundle.recipe.chat_tokenizer, tokenizer=here))


def matching_chat_tokenizer(spec: ChatTokenizerSpec, identity: TokenizerIdentity | None) -> ChatTokenizer:
    """Return this process's chat tokenizer, after checking that it is the one that the run was planned with.

    Args:
        spec: describes the tokenizer.
        identity: `ChatTokenizer.identity` in the process that planned the run; None without a tokenizer.

    Raises:
        TokenizerError: the files of the tokenizer have changed since.
    """
    if identity is not None and cached_chat_tokenizer(spec).identity != identity:
        cached_chat_tokenizer.cache_clear()  # this process, or the one it was forked from, is older than the plan
        if cached_chat_tokenizer(spec).identity != identity:
            raise TokenizerError(TOKENIZER_CHANGED)
    return cached_chat_tokenizer(spec)


@lru_cache(maxsize=1)
def cached_chat_tokenizer(spec: ChatTokenizerSpec) -> ChatTokenizer:
    """Return the chat tokenizer that all tasks of this process share."""
    return ChatTokenizer(spec)


def _unpack(files: Mapping[str, bytes]) -> Path:
    digest = hashlib.sha256(pickle.dumps(sorted(files.items()))).hexdigest()
    home = Path(tempfile.gettempdir(), f"sftkit-{os.getuid()}")
    home.mkdir(mode=0o700, exist_ok=True)
    status = home.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise TokenizerError(
            f"{home}: is not a directory that this user alone can write to; set TMPDIR to a directory of your own on "
            "every node"
        )
    folder = home / digest
    for name, content in files.items():
        path = folder / name
        if file_size(path) != len(content):  # missing: something may have cleaned up temporary files
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_replace(path, uuid.uuid4().hex) as temporary:
                temporary.write_bytes(content)
    return folder
