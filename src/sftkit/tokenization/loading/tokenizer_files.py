"""The files that a tokenizer is loaded from, and their hashes for manifests."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sftkit.storage.model_location import model_location

SENTENCEPIECE_MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
"""Names of files that may hold a SentencePiece model."""

_NAMES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "generation_config.json"),
    *("vocab.json", "vocab.txt", "merges.txt", *SENTENCEPIECE_MODELS),
    *("tekken.json", "tiktoken.model", "tokenizer.model.v3"),
)
_PATTERNS = ("*.tiktoken", "tokenization_*.py", "additional_chat_templates/*.jinja")

_CONFIGS = ("config.json", "processor_config.json", "preprocessor_config.json")
"""Files next to a tokenizer that transformers reads to find its class."""
_CODE = "*.py"

_FAST_TOKENIZER = "tokenizer.json"
_VOCABULARIES = (
    *(_FAST_TOKENIZER, "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
    *("tekken.json", "tiktoken.model", "tokenizer.model.v3"),
)
_OTHER_VOCABULARIES = ("*.tiktoken", "tokenizer.*.json")


def tokenizer_file_paths(name: str) -> list[tuple[str, Path]]:
    """Return the name and path of each file that loading a tokenizer may read.

    These are the files of the tokenizer, and the configs and code next to them.

    Args:
        name: directory or Hub id that the tokenizer was loaded from.
    """
    found = dict(_found(name, (*_NAMES, *_CONFIGS)))
    folders = {path.parent for key, path in found.items() if "/" not in key}
    code = {path.name: path for folder in folders for path in folder.glob(_CODE)}
    return sorted({**code, **found}.items())


def tokenizer_file_hashes(name: str) -> dict[str, str]:
    """Return the sha256 of each file that defines a tokenizer, by file name.

    The files include `generation_config.json`, which names stop tokens. For a Hub id, the files in the local cache are
    used. The result is empty if no file is found.

    Args:
        name: directory or Hub id that the tokenizer was loaded from.
    """
    return {key: _sha256(path) for key, path in sorted(_found(name, _NAMES))}


def missing_vocabulary(name: str, other_names: Collection[str] = ()) -> str | None:
    """Return a sentence that says which files of a vocabulary were looked for; None if there is one of them.

    Args:
        name: directory or Hub id; of a Hub id, the files in the local cache are used.
        other_names: more files that the class of the tokenizer reads.
    """
    folder = Path(model_location(name))
    if any(_found(name, (*_VOCABULARIES, *other_names))):
        return None
    if folder.is_dir() and any(next(folder.glob(pattern), None) for pattern in _OTHER_VOCABULARIES):
        return None
    place = "directory" if folder.is_dir() else "repository"
    return f"the {place} has no tokenizer: it has none of {', '.join(_VOCABULARIES)}"


def needs_sentencepiece(name: str) -> bool:
    """Return whether a tokenizer has only a SentencePiece model, and the package that reads it is not installed."""
    if importlib.util.find_spec("sentencepiece") is not None:
        return False
    files = dict(tokenizer_file_paths(name))
    return _FAST_TOKENIZER not in files and any(
        each in files and _is_protobuf(files[each]) for each in SENTENCEPIECE_MODELS
    )


def _is_protobuf(path: Path) -> bool:
    """Return whether a file begins as SentencePiece models do; files of tiktoken may have the same name."""
    with path.open("rb") as stream:
        return stream.read(1) == b"\n"


def _found(name: str, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    folder = Path(model_location(name))
    if folder.is_dir():
        paths = [folder / each for each in names]
        paths += [path for pattern in _PATTERNS for path in folder.glob(pattern)]
        yield from ((path.relative_to(folder).as_posix(), path) for path in paths if path.is_file())
        return
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for each in names:
        try:
            path = try_to_load_from_cache(name, each)
        except HFValidationError:  # neither a directory nor a Hub id
            return
        if isinstance(path, str):
            yield each, Path(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
