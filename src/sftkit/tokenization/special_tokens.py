"""The special tokens of a tokenizer, its length limit, and the stop tokens that the files of its model name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.errors import TokenizerError
from sftkit.storage.model_location import model_location

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GENERATION_CONFIG = "generation_config.json"

_NO_LIMIT = int(1e20)
"""A larger `model_max_length` means that there is no limit, as in transformers."""


def eos_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the eos token as text.

    Raises:
        TokenizerError: the tokenizer has none.
    """
    eos = tokenizer.eos_token
    if not isinstance(eos, str):
        raise TokenizerError(
            f"tokenizer {tokenizer.name_or_path!r} has no eos token, which texts must end with; use a tokenizer that "
            "has one"
        )
    return eos


def length_limit(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the most tokens that the tokenizer's model takes; None if it sets no limit."""
    limit: int = tokenizer.model_max_length
    return limit if limit <= _NO_LIMIT else None


def stop_tokens(tokenizer: PreTrainedTokenizerBase, name: str) -> tuple[str, ...]:
    """Return the tokens at which a model stops, as text: the eos token, then the others.

    The others are the `eos_token_id`s in the `generation_config.json` next to the tokenizer. Models may stop at tokens
    other than the eos token of their tokenizer: at the end of a turn (Llama 3) or the header of the next one (GLM).

    Args:
        tokenizer: the tokenizer of the model.
        name: directory or Hub id that the tokenizer was loaded from.
    """
    found = [tokenizer.eos_token] if isinstance(tokenizer.eos_token, str) else []
    for token_id in _eos_ids(name):
        token = tokenizer.convert_ids_to_tokens(token_id) if 0 <= token_id < len(tokenizer) else None
        if isinstance(token, str):
            found.append(token)
    return tuple(dict.fromkeys(found))


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return all special tokens as text: those with a role, such as eos, and those added as special."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tuple(dict.fromkeys([*added, *tokenizer.all_special_tokens]))


def _eos_ids(name: str) -> list[int]:
    path = _generation_config(name)
    if path is None:
        return []
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []  # the eos token of the tokenizer is used in any case
    listed = values if isinstance(values, list) else [values]
    return [value for value in listed if type(value) is int]


def _generation_config(name: str) -> Path | None:
    local = Path(model_location(name))
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
    except OSError:  # no such repository: the tokenizer has another origin
        return None
    return Path(found) if found else None
