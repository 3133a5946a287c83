"""The tokens by which a model stops, as its files name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.sample import sample_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GENERATION_CONFIG = "generation_config.json"


def stop_tokens(tokenizer: PreTrainedTokenizerBase, name: str) -> tuple[str, ...]:
    """Texts of the eos token and of those that `generation_config.json` beside the tokenizer lists, the eos first.

    Models may stop by tokens that are not the tokenizer's eos: the end of a turn (Llama 3), the header of the next
    one (GLM).

    Args:
        tokenizer: knows its eos token, and the ids.
        name: directory or Hub id the tokenizer was loaded from.
    """
    found = [tokenizer.eos_token] if isinstance(tokenizer.eos_token, str) else []
    for value in _eos_ids(name):
        token = tokenizer.convert_ids_to_tokens(value) if 0 <= value < len(tokenizer) else None
        if isinstance(token, str):
            found.append(token)
    return tuple(dict.fromkeys(found))


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts of all special tokens: those with a part to play, and those added as special."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tuple(dict.fromkeys([*added, *tokenizer.all_special_tokens]))


def _eos_ids(name: str) -> list[int]:
    path = _generation_config(name)
    if path is None:
        return []
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []  # the tokenizer's own eos is known anyway
    listed = values if isinstance(values, list) else [values]
    return [value for value in listed if type(value) is int]


def _generation_config(name: str) -> Path | None:
    local = Path(str(sample_path(name))).expanduser()
    if local.is_dir():
        return local / _GENERATION_CONFIG if (local / _GENERATION_CONFIG).is_file() else None
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(
            name,
            _GENERATION_CONFIG,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:  # no such repository: the tokenizer came from elsewhere
        return None
    return Path(found) if found else None
