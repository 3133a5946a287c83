"""Loads tokenizers through transformers."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.config.schema.option_values import FMS
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.error_text import first_line
from sftkit.core.startup.garbage_collection import paused_garbage_collection
from sftkit.errors import ConfigError, TokenizerError
from sftkit.storage.model_location import adapter_base, hub_problem, location_problem, model_location
from sftkit.tokenization.loading.special_tokens import add_missing_tokens
from sftkit.tokenization.loading.tokenizer_files import missing_vocabulary, needs_sentencepiece
from sftkit.tokenization.templates.named_templates import named_or_given

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

TOKENIZER_CHANGED = "the tokenizer's files changed during the run; run the command again"
"""The message of the error for a tokenizer that does not do what it did when the run was planned."""

_CHANCE_OF_MODELS = ("dropout", "alpha", "nbest_size")
_CHANCE_OF_SENTENCEPIECE = ("_enable_sampling",)
_SHORT_TEXT = "a b"


@dataclass(frozen=True)
class TokenizerSpec:
    """Everything needed to load the same tokenizer in any process."""

    name: str
    """Directory or Hub id."""
    chat_template: str | None = None
    """A chat template that replaces the tokenizer's own; None keeps its own."""
    added_special_tokens: tuple[str, ...] = ()
    trust_remote_code: bool = False
    adds_missing_tokens: bool = False
    """Whether a tokenizer without a pad, eos, bos or unk token gets one, as in fms-hf-tuning."""


def tokenizer_spec(options: DataOptions) -> TokenizerSpec | None:
    """Return the spec of the tokenizer that a config names; None if it names none.

    Raises:
        ConfigError: the chat template cannot be read.
    """
    name = options.tokenizer_name_or_path or options.model_name_or_path
    if name is None:
        return None
    return TokenizerSpec(
        name=name,
        chat_template=read_chat_template(options.dataprocessor),
        added_special_tokens=options.add_special_tokens,
        trust_remote_code=options.trust_remote_code,
        adds_missing_tokens=options.compat == FMS and options.tokenizer_name_or_path is None,
    )


def check_tokenizer_name(options: DataOptions) -> None:
    """Check the name of the tokenizer that a config uses, before anything is loaded.

    Raises:
        TokenizerError: the name is that of a missing directory or of a file; the error names the key.
    """
    key = "tokenizer_name_or_path" if options.tokenizer_name_or_path else "model_name_or_path"
    name = getattr(options, key)
    problem = None if name is None else location_problem(name)
    if problem is not None:
        raise TokenizerError(f"{key}: tokenizer {name!r} cannot be loaded: {problem}")


def read_chat_template(processor: ProcessorConfig) -> str | None:
    """Return the chat template of a data config, given as text, by name, as a file or in base64; None if it has none.

    Raises:
        ConfigError: it cannot be read or decoded, or its name is unknown.
    """
    if processor.chat_template is not None:
        return named_or_given(processor.chat_template)
    if processor.chat_template_path is not None:
        try:
            return Path(processor.chat_template_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(
                f"dataprocessor.chat_template_path: {processor.chat_template_path}: {reason}; it must name a "
                "Jinja file in UTF-8"
            ) from None
    if processor.chat_template_base64 is not None:
        try:
            return base64.b64decode(processor.chat_template_base64, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError("dataprocessor.chat_template_base64 must be base64-encoded UTF-8 text") from None
    return None


def load_tokenizer(spec: TokenizerSpec) -> PreTrainedTokenizerBase:
    """Load a tokenizer, and set the chat template and special tokens of the spec.

    Raises:
        TokenizerError: it does not exist, or transformers cannot load it.
    """
    from transformers import PreTrainedTokenizerBase
    from transformers.models.auto.tokenization_auto import AutoTokenizer  # `transformers` would scan its models for it

    problem = location_problem(spec.name)
    if problem is not None:
        raise TokenizerError(f"tokenizer {spec.name!r} cannot be loaded: {problem}")
    try:
        with paused_garbage_collection():
            tokenizer = AutoTokenizer.from_pretrained(
                model_location(spec.name), trust_remote_code=spec.trust_remote_code
            )
    except Exception as error:  # transformers raises whatever its files provoke
        if "trust_remote_code" in str(error) and not spec.trust_remote_code:
            raise TokenizerError(
                f"tokenizer {spec.name!r} cannot be loaded without the code that comes with it; read the code, and set "
                "trust_remote_code=true if you trust it"
            ) from error
        if needs_sentencepiece(spec.name):
            raise TokenizerError(
                f"tokenizer {spec.name!r} is a SentencePiece model, which takes the package sentencepiece; install it "
                "with: pip install 'sftkit[sentencepiece]'"
            ) from error
        reason = hub_problem(spec.name, error) or _without_vocabulary(spec.name) or _reason(error)
        raise TokenizerError(f"tokenizer {spec.name!r} cannot be loaded: {reason}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TokenizerError(f"tokenizer {spec.name!r} cannot be loaded: no tokenizer found there; name another")
    _check_usable(tokenizer, spec.name)
    _switch_off_chance(tokenizer, spec.name)
    if spec.adds_missing_tokens:
        add_missing_tokens(tokenizer, spec.name)
    if spec.added_special_tokens:
        tokenizer.add_special_tokens(
            {"extra_special_tokens": list(spec.added_special_tokens)}, replace_extra_special_tokens=False
        )
    if spec.chat_template is not None:
        tokenizer.chat_template = spec.chat_template
    return tokenizer


def _check_usable(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise `TokenizerError` if a tokenizer cannot encode anything: not all settings are checked when it is loaded.

    For some models transformers makes a tokenizer without a vocabulary where there are no files of one.
    """
    try:
        ids = tokenizer(_SHORT_TEXT)["input_ids"]
        is_empty = not set(_SHORT_TEXT.split()) & set(tokenizer.decode(ids, skip_special_tokens=True))
    except Exception as error:  # transformers raises whatever its files provoke
        raise TokenizerError(f"tokenizer {name!r} cannot encode a text: {_reason(error)}") from error
    reason = _without_vocabulary(name, type(tokenizer).vocab_files_names.values()) if is_empty else None
    if reason is not None:
        raise TokenizerError(f"tokenizer {name!r} cannot be loaded: {reason}")


def _without_vocabulary(name: str, other_files: Collection[str] = ()) -> str | None:
    """Return a sentence if a directory or repository has no vocabulary, so that it holds no tokenizer."""
    missing = missing_vocabulary(name, other_files)
    if missing is None:
        return None
    base = adapter_base(name)
    if base is None:
        return f"{missing}; add these files, or set tokenizer_name_or_path to a directory that has them"
    return (
        f"it is a LoRA adapter{f' of the model {base!r}' if base else ''} without a tokenizer; set "
        f"tokenizer_name_or_path to {'this model' if base else 'the model that it was trained for'}"
    )


def _reason(error: Exception) -> str:
    """Return why transformers cannot use the files of a tokenizer; errors of its own code say nothing to a user."""
    if isinstance(error, (AttributeError, IndexError, KeyError, TypeError)):
        return "a value in one of its files is not what transformers expects; name another"
    return first_line(error)


def _switch_off_chance(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Switch off what makes a tokenizer encode a text differently each time: it is meant for training, not for data."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    found = []
    for setting in _CHANCE_OF_MODELS:
        if getattr(model, setting, None):
            setattr(model, setting, None)
            found.append(setting)
    pieces: Any = getattr(tokenizer, "sp_model", None)
    for setting in _CHANCE_OF_SENTENCEPIECE:
        if getattr(pieces, setting, False):
            setattr(pieces, setting, False)
            found.append(setting.strip("_"))
    if found:
        _log.warning(
            "tokenizer %r encodes a text differently each time (%s); this is switched off", name, ", ".join(found)
        )
