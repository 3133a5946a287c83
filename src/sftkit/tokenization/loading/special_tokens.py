"""The special tokens of a tokenizer and those that it lacks, its length limit, and the stop tokens of its model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.errors import TokenizerError
from sftkit.storage.model_location import model_location

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

_GENERATION_CONFIG = "generation_config.json"

_NO_LIMIT = int(1e20)
"""A larger `model_max_length` means that there is no limit, as in transformers."""

_PAD, _EOS, _BOS, _UNK = "<PAD>", "</s>", "<s>", "<unk>"
_OTHER_PAD = "<pad>"

MISSING_TOKENS = (_PAD, _EOS, _BOS, _UNK, _OTHER_PAD)
"""The tokens that a tokenizer may get."""

_LLAMA = frozenset({"LlamaTokenizer", "LlamaTokenizerFast"})
_NEOX = frozenset({"GPTNeoXTokenizer", "GPTNeoXTokenizerFast"})


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


def closing_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the special tokens that are found whatever follows them, as text.

    What is before the end of such a token has the same tokens in all texts that go on after it. Left out are tokens
    that only count as words of their own, and those with which a longer token begins.
    """
    added = [token for token in tokenizer.added_tokens_decoder.values() if token.content]
    return tuple(
        token.content
        for token in added
        if token.special
        and not (token.single_word or token.normalized)
        and not any(other.content.startswith(token.content) for other in added if other is not token)
    )


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


def add_missing_tokens(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Give a tokenizer the pad, eos, bos and unk tokens that it lacks, and a pad token that is not its eos token.

    Tokens that its vocabulary lacks are added at its end, so the ids of other tokens stay. Tokenizers of Llama get all
    four, whatever they have.

    Args:
        tokenizer: is changed.
        name: for the log message.
    """
    roles = _missing_roles(tokenizer)
    if not roles:
        return
    before = len(tokenizer)
    tokenizer.add_special_tokens(dict(roles))
    _log.info(
        "tokenizer %r gets %s (compat: fms); %d tokens are new in its vocabulary",
        name,
        ", ".join(f"{role} {token}" for role, token in roles.items()),
        len(tokenizer) - before,
    )


def _missing_roles(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return role -> token, in the order in which fms-hf-tuning adds them, which decides about their ids."""
    classes = {cls.__name__ for cls in type(tokenizer).__mro__}
    roles: dict[str, str] = {}
    if classes & _LLAMA:
        roles = {"bos_token": _BOS, "eos_token": _EOS, "unk_token": _UNK, "pad_token": _OTHER_PAD}
    elif classes & _NEOX:
        roles = {"pad_token": _OTHER_PAD}
    for role, token in (("pad_token", _PAD), ("eos_token", _EOS), ("bos_token", _BOS), ("unk_token", _UNK)):
        if getattr(tokenizer, role) is None:
            roles[role] = token
    if tokenizer.pad_token is not None and tokenizer.pad_token == tokenizer.eos_token:
        if tokenizer.eos_token != _PAD:
            roles["pad_token"] = _PAD
        else:
            roles["eos_token"] = _EOS
    return {role: token for role, token in roles.items() if getattr(tokenizer, role) != token}
