"""The files a tokenizer is loaded from, as hashes: what a manifest says of them, and what is there now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from sftkit.sample import sample_path

_NAMES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "generation_config.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("tekken.json", "tiktoken.model", "tokenizer.model.v3"),
)
_PATTERNS = ("*.tiktoken", "tokenization_*.py", "additional_chat_templates/*.jinja")


_BESIDE = ("config.json", "processor_config.json", "preprocessor_config.json")
_CODE = "*.py"


def tokenizer_file_paths(name: str) -> list[tuple[str, Path]]:
    """All that loading a tokenizer may look at, by its name there: its own files, and what lies beside them and says
    of which kind it is.

    Args:
        name: directory or Hub id the tokenizer was loaded from.
    """
    found = dict(_found(name, (*_NAMES, *_BESIDE)))
    folders = {path.parent for key, path in found.items() if "/" not in key}
    code = {path.name: path for folder in folders for path in folder.glob(_CODE)}
    return sorted({**code, **found}.items())


def tokenizer_file_hashes(name: str) -> dict[str, str]:
    """sha256 of every file that a tokenizer is made from, by its name there; of a Hub id, those in the local cache.

    `generation_config.json` is among them, for stop tokens are read from it. {} where nothing can be found.

    Args:
        name: directory or Hub id the tokenizer was loaded from.
    """
    return {key: _sha256(path) for key, path in sorted(_found(name, _NAMES))}


def _found(name: str, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    folder = Path(str(sample_path(name))).expanduser()
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
