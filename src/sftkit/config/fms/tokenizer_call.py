"""`tokenizer_kwargs` of a handler: arguments of the tokenizer's call, as data configs of fms-hf-tuning give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.config.binding import describe_value
from sftkit.config.fields import did_you_mean
from sftkit.config.words import parse_boolean
from sftkit.errors import ConfigError

_TRUNCATES = ("longest_first", "only_first")
_KEEPS = "do_not_truncate"
_NO_EFFECT = frozenset(
    {"padding", "padding_side", "pad_to_multiple_of", "return_tensors", "return_attention_mask", "verbose"}
    | {"return_token_type_ids", "return_special_tokens_mask", "return_length"}
)
"""Arguments that change no id: rows of shards are not padded, and have no other columns."""

_KNOWN = ("truncation", "max_length", "add_special_tokens")


@dataclass(frozen=True)
class TokenizerCall:
    """How a tokenizer is called."""

    truncates: bool = False
    max_length: int | None = None
    """In tokens; None for the tokenizer's `model_max_length`."""
    adds_special_tokens: bool = True


def read_tokenizer_kwargs(handler: str, given: Mapping[str, Any]) -> TokenizerCall:
    """Return what `tokenizer_kwargs` ask for. As in transformers, `max_length` alone truncates.

    Args:
        handler: its name, for messages.
        given: the arguments.

    Raises:
        ConfigError: an argument is not known, or its value is wrong.

    Example:
        >>> read_tokenizer_kwargs("tokenize", {"max_length": 8, "padding": True})
        TokenizerCall(truncates=True, max_length=8, adds_special_tokens=True)
    """
    where = f"{handler}: tokenizer_kwargs"
    unknown = next((key for key in given if key not in _KNOWN and key not in _NO_EFFECT), None)
    if unknown is not None:
        hint = did_you_mean(unknown, _KNOWN)
        raise ConfigError(f"{where}: {unknown!r} is not supported{hint}; set {', '.join(_KNOWN)}")
    length = given.get("max_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ConfigError(f"{where}: max_length must be a whole number of 1 or more, not {describe_value(length)}")
    special = parse_boolean(given.get("add_special_tokens", True))
    if special is None:
        shown = describe_value(given["add_special_tokens"])
        raise ConfigError(f"{where}: add_special_tokens must be true or false, not {shown}")
    return TokenizerCall(_truncates(where, given.get("truncation"), length), length, special)


def _truncates(where: str, value: Any, length: int | None) -> bool:
    if value is None:
        return length is not None
    if value in _TRUNCATES:
        return True
    truncates = False if value == _KEEPS else parse_boolean(value)
    if truncates is None:
        raise ConfigError(f"{where}: truncation must be true or false, not {describe_value(value)}")
    return truncates
