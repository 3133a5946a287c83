"""Which tokenizers gigatoken is known to encode with like `tokenizers` does.

gigatoken reads the configuration of a tokenizer, refuses some of what it does not support, and ignores the rest. The
checks here accept only what was found to give the same ids: on every code point, on texts made to be difficult, and
with a vocabulary of all pairs of bytes, with which a wrong split nearly always changes the ids. What they miss is found
at run time (`verification`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sftkit.tokenization.encoding.fast.byte_level import BYTE_CHARACTERS
from sftkit.tokenization.encoding.fast.split_patterns import UNKNOWN_SPLIT, has_known_pattern, require
from sftkit.tokenization.loading.tokenizer_identity import backend_parts

_POST_PROCESSORS = frozenset({"ByteLevel", "RobertaProcessing", "BertProcessing", "TemplateProcessing"})


def check_gigatoken_support(backend: Any) -> None:
    """Accept tokenizers for which gigatoken gives the same ids.

    Args:
        backend: the `tokenizers.Tokenizer`.

    Raises:
        UnsupportedByEngineError: gigatoken may give other ids; the message says why.
    """
    model, tokens, parts = backend.model, backend.get_added_tokens_decoder().values(), backend_parts(backend)
    kind = type(model).__name__
    require(kind == "BPE", f"is {kind}, not BPE")
    for name in ("dropout", "end_of_word_suffix", "continuing_subword_prefix"):
        require(not getattr(model, name), f"has {name}")
    require(not backend.encode_special_tokens, "splits special tokens")
    for token in tokens:
        strips_space = (token.lstrip or token.rstrip) and any(map(str.isspace, token.content))
        is_plain = token.content and not token.single_word and not strips_space
        require(bool(is_plain), f"depends on the text next to the added token {token.content!r}")
    require(_only_surrounds(parts["post_processor"]), "has an unknown post-processor")
    if model.byte_fallback:
        _check_sentencepiece(model, parts)
    else:
        _check_byte_level(backend, {token.normalized for token in tokens}, parts)


def _check_sentencepiece(model: Any, parts: Mapping[str, Any]) -> None:
    """Check BPE over characters, with spaces as U+2581 and unknown characters as bytes (Llama 2, Mistral)."""
    normalizer, pre_tokenizer = parts["normalizer"], parts["pre_tokenizer"]
    prepended = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    by_normalizer = pre_tokenizer is None and normalizer == {"type": "Sequence", "normalizers": prepended}
    by_metaspace = normalizer is None and pre_tokenizer is not None and pre_tokenizer["type"] == "Metaspace"
    require(by_normalizer or (by_metaspace and pre_tokenizer["replacement"] == "▁"), UNKNOWN_SPLIT)
    require(not model.ignore_merges, "has ignore_merges")
    require(all(model.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256)), "lacks the token of a byte")


def _check_byte_level(backend: Any, normalized: Collection[bool], parts: Mapping[str, Any]) -> None:
    normalizer = parts["normalizer"]
    require(normalizer in (None, {"type": "NFC"}), "normalizes text in an unknown way")
    require(len(normalized) <= 1 and not (normalizer and True in normalized), "finds added tokens in normalized text")
    require(has_known_pattern(parts["pre_tokenizer"]), UNKNOWN_SPLIT)
    vocabulary = backend.get_vocab(with_added_tokens=False)
    other_characters = set("".join(vocabulary)).difference(BYTE_CHARACTERS)
    if other_characters:
        contents = {token.content for token in backend.get_added_tokens_decoder().values()}
        keys = [key for key in vocabulary if not other_characters.isdisjoint(key) and key not in contents]
        require(not keys, f"has {len(keys)} tokens that are not sequences of bytes, such as {keys[:1]}")


def _only_surrounds(post_processor: Mapping[str, Any] | None) -> bool:
    """Return whether a post-processor, as JSON data, only adds tokens before and after a text."""
    if post_processor is None:
        return True
    if post_processor["type"] == "Sequence":
        return all(map(_only_surrounds, post_processor["processors"]))
    if post_processor["type"] == "TemplateProcessing":
        return [piece["Sequence"]["id"] for piece in post_processor["single"] if "Sequence" in piece] == ["A"]
    return post_processor["type"] in _POST_PROCESSORS
