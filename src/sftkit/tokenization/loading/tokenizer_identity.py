"""What a tokenizer does: its backend as JSON, and fingerprints of it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PARTS = ("normalizer", "pre_tokenizer", "post_processor")


class TokenizerIdentity(NamedTuple):
    """What a tokenizer, its chat template and the files of its model do."""

    fingerprint: str
    chat_template_sha256: str | None
    stop_tokens: tuple[str, ...]


def backend_json(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the `tokenizers` backend in the format of tokenizer.json; None for a tokenizer written in Python.

    Padding, truncation and the trimming of offsets are excluded: callers set them, and they change no id.
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
    """Return the sha256 of everything that determines the ids of a text: equal fingerprints mean equal ids.

    Args:
        tokenizer: the tokenizer.
        backend: its `backend_json`, if it is already known.
    """
    state = backend if backend is not None else backend_json(tokenizer)
    if state is None:
        state = json.dumps({"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}, sort_keys=True)
    special_tokens = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return hashlib.sha256(f"{state}\n{special_tokens}".encode()).hexdigest()


def backend_parts(backend: Any) -> dict[str, Any]:
    """Return the normalizer, pre-tokenizer and post-processor of a `tokenizers` backend as JSON values, or None."""
    from tokenizers import Tokenizer, models

    # They cannot be serialized alone; that of an otherwise empty tokenizer is cheap.
    empty = Tokenizer(models.BPE())
    for part in _PARTS:
        if getattr(backend, part) is not None:
            setattr(empty, part, getattr(backend, part))
    state = json.loads(empty.to_str())
    return {part: state[part] for part in _PARTS}


def trims_offsets(backend: Any) -> bool:
    """Return whether a byte-level post-processor excludes the white space of a token from its offsets."""
    return _untrim(backend_parts(backend)["post_processor"])


def disable_offset_trimming(backend: Any) -> None:
    """Make offsets include the white space of a token.

    Byte-level post-processors may trim it (`trim_offsets`). A token that is white space only would then cover no
    character, so it would be unknown whether it is inside of a span. The ids do not change.
    """
    from tokenizers import Tokenizer, models

    post_processor = backend_parts(backend)["post_processor"]
    if _untrim(post_processor):
        state = json.loads(Tokenizer(models.BPE()).to_str())
        backend.post_processor = Tokenizer.from_str(
            json.dumps({**state, "post_processor": post_processor})
        ).post_processor


def chat_template_sha256(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the sha256 of the chat template in use; None if there is none."""
    template = tokenizer.chat_template
    if template is None:
        return None
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()


def _untrim(part: Any) -> bool:
    """Set `trim_offsets` to false everywhere in a serialized post-processor; return whether it was true anywhere."""
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
