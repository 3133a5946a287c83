"""Tokenizers as transformers sets them up, loaded without torch, and told apart by what they do."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.config.schema import DataOptions, ProcessorConfig
from sftkit.errors import ConfigError, TokenizerError
from sftkit.sample import sample_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizerSpec:
    """What it takes to load the same tokenizer again, in any process.

    chat_template: the template that replaces the tokenizer's own; None keeps its own.
    """

    name: str
    chat_template: str | None = None
    added_special_tokens: tuple[str, ...] = ()
    trust_remote_code: bool = False


def tokenizer_spec(options: DataOptions) -> TokenizerSpec | None:
    """The tokenizer a config names, or None when it names none.

    Raises:
        ConfigError: more than one chat template, or one that cannot be read.
    """
    name = options.tokenizer_name_or_path or options.model_name_or_path
    if name is None:
        return None
    return TokenizerSpec(
        name=name,
        chat_template=read_chat_template(options.dataprocessor),
        added_special_tokens=options.add_special_tokens,
        trust_remote_code=options.trust_remote_code,
    )


def read_chat_template(processor: ProcessorConfig) -> str | None:
    """The one chat template of a data config, from its text, its file or its base64.

    Raises:
        ConfigError: it cannot be read or decoded.
    """
    if processor.chat_template is not None:
        return processor.chat_template
    if processor.chat_template_path is not None:
        try:
            return Path(processor.chat_template_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(f"dataprocessor.chat_template_path: {processor.chat_template_path}: {reason}") from None
    if processor.chat_template_base64 is not None:
        try:
            return base64.b64decode(processor.chat_template_base64, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError("dataprocessor.chat_template_base64 is not the base64 of UTF-8 text") from None
    return None


def load_tokenizer(spec: TokenizerSpec) -> PreTrainedTokenizerBase:
    """Load a tokenizer, with the spec's chat template and special tokens in place.

    Raises:
        TokenizerError: it is not there, or transformers cannot load it.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    location = str(sample_path(spec.name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=spec.trust_remote_code)
    except Exception as error:  # transformers raises whatever its files provoke
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TokenizerError(f"tokenizer {spec.name!r} cannot be loaded: {reason}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TokenizerError(f"tokenizer {spec.name!r} cannot be loaded: there is no tokenizer there")
    if spec.added_special_tokens:
        tokenizer.add_special_tokens(
            {"extra_special_tokens": list(spec.added_special_tokens)}, replace_extra_special_tokens=False
        )
    if spec.chat_template is not None:
        tokenizer.chat_template = spec.chat_template
    return tokenizer


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over everything that decides which ids a text gives: equal fingerprints, equal tokens.

    Padding, truncation and the trimming of offsets are left out: they are the caller's, and change no id.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state: Any
    if backend is not None:
        state = json.loads(backend.to_str())
        state.pop("truncation", None)
        state.pop("padding", None)
        _drop_key(state.get("post_processor"), "trim_offsets")
    else:
        state = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    text = json.dumps([state, tokenizer.special_tokens_map], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def chat_template_sha256(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """sha256 of the chat template in force, None where there is none."""
    template = tokenizer.chat_template
    if template is None:
        return None
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()


def _drop_key(part: Any, key: str) -> None:
    """Remove a key wherever it stands in nested dicts and lists."""
    if isinstance(part, dict):
        part.pop(key, None)
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _drop_key(inner, key)
