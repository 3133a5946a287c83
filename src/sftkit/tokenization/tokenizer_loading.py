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
from sftkit.core.error_text import first_line
from sftkit.errors import ConfigError, TokenizerError
from sftkit.sample import sample_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PARTS = ("normalizer", "pre_tokenizer", "post_processor")


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
    if _is_path(location) and not Path(location).exists():
        raise TokenizerError(f"tokenizer {spec.name!r} cannot be loaded: no such directory")
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=spec.trust_remote_code)
    except Exception as error:  # transformers raises whatever its files provoke
        reason = first_line(error)
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


def _is_path(location: str) -> bool:
    """Whether a name can only be that of a directory: Hub ids are `name` or `owner/name`."""
    return location.startswith(("/", ".", "~")) or location.count("/") > 1


def backend_json(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The `tokenizers` backend as tokenizer.json would hold it, None for tokenizers written in Python.

    Padding, truncation and the trimming of offsets are left out: they are the caller's, and change no id.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    text: str = backend.to_str()
    if backend.truncation is None and backend.padding is None and not trims_offsets(backend):
        return text
    copy = Tokenizer.from_str(text)
    copy.no_truncation()
    copy.no_padding()
    disable_offset_trimming(copy)
    return str(copy.to_str())


def fingerprint(tokenizer: PreTrainedTokenizerBase, backend: str | None = None) -> str:
    """sha256 over everything that decides which ids a text gives: equal fingerprints, equal tokens.

    backend: what `backend_json` gives for it, where that is known already.
    """
    state = backend if backend is not None else backend_json(tokenizer)
    if state is None:
        state = json.dumps({"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}, sort_keys=True)
    special_tokens = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return hashlib.sha256(f"{state}\n{special_tokens}".encode()).hexdigest()


def backend_parts(backend: Any) -> dict[str, Any]:
    """The normalizer, pre-tokenizer and post-processor of a `tokenizers` backend as JSON values, None where missing."""
    from tokenizers import Tokenizer, models

    # They have no JSON of their own; that of an otherwise empty tokenizer costs nothing.
    empty = Tokenizer(models.BPE())
    for part in _PARTS:
        if getattr(backend, part) is not None:
            setattr(empty, part, getattr(backend, part))
    state = json.loads(empty.to_str())
    return {part: state[part] for part in _PARTS}


def trims_offsets(backend: Any) -> bool:
    """Whether a byte-level post-processor leaves the white space of a token out of its offsets."""
    return _untrim(backend_parts(backend)["post_processor"])


def disable_offset_trimming(backend: Any) -> None:
    """Let offsets include the white space of a token.

    Byte-level post-processors may trim it (`trim_offsets`): a token that is white space only would then cover
    nothing, and could not be told to lie inside or outside of a span. The ids are not touched by this.
    """
    from tokenizers import Tokenizer, models

    post_processor = backend_parts(backend)["post_processor"]
    if _untrim(post_processor):
        state = json.loads(Tokenizer(models.BPE()).to_str())
        backend.post_processor = Tokenizer.from_str(
            json.dumps({**state, "post_processor": post_processor})
        ).post_processor


def chat_template_sha256(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """sha256 of the chat template in force, None where there is none."""
    template = tokenizer.chat_template
    if template is None:
        return None
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()


def _untrim(part: Any) -> bool:
    """Switch `trim_offsets` off wherever it stands in a serialised post-processor; True when it was on."""
    found = False
    if isinstance(part, dict):
        if part.get("trim_offsets"):
            part["trim_offsets"] = False
            found = True
        for value in part.values():
            found = _untrim(value) or found
    elif isinstance(part, list):
        for value in part:
            found = _untrim(value) or found
    return found
