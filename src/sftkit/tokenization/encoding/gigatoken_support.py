"""Which tokenizers, and which texts, gigatoken encodes as `tokenizers` does.

gigatoken takes the configuration of a tokenizer, refuses much of what it does not know, and ignores the rest. What is
trusted here is what was found to give the same ids: on every code point, on texts made to be difficult, and with a
vocabulary of all pairs of bytes, in which a wrong split nearly always shows. What is left is watched at run time (see
`proving`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import lengths_to_offsets
from sftkit.tokenization.encoding.byte_level import BYTE_CHARACTERS
from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.tokenizer_loading import backend_parts

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
)
_ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"

_SPLITS = frozenset(
    {
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _ENDS,  # Qwen2, Qwen3
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _ENDS,  # Qwen3.5
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _ENDS,  # Llama 3
        _CASED % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?")
        + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
        + _ENDS,  # o200k
        _CASED % ("", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _ENDS,  # Nemotron
    }
)
_DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"""
    "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)  # DeepSeek V3
_UNUSUAL_SPLIT = "splits text in an unusual way"
_POST_PROCESSORS = frozenset({"ByteLevel", "RobertaProcessing", "BertProcessing", "TemplateProcessing"})

PLAIN, COMPOSABLE, UNSAFE = range(3)
"""Characters that composing (NFC) leaves as they are; those that it may change; those that the two engines do not know
alike."""

# Scripts and signs of which no character composes with another, or is ever replaced.
_INERT = (
    (0x00, 0x2FF), (0x400, 0x482), (0x48A, 0x52F), (0x5D0, 0x5EA), (0x2010, 0x2027), (0x2030, 0x205E),
    (0x20A0, 0x20BF), (0x2190, 0x2328), (0x2460, 0x2ADB), (0x3001, 0x3029), (0x3041, 0x3096), (0x30A1, 0x30FA),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF01, 0xFF60), (0x1F300, 0x1FAFF),
)  # fmt: skip

# Characters that gigatoken's tables, which are newer, know as letters or numbers and those of `tokenizers` do not.
_NEW_CHARACTERS = (
    (0x88f, 0x88f), (0x897, 0x897), (0xc5c, 0xc5c), (0xcdc, 0xcdc), (0x1acf, 0x1aeb), (0x20c1, 0x20c1),
    (0x2b96, 0x2b96), (0xa7ce, 0xa7cf), (0xa7d2, 0xa7d2), (0xa7d4, 0xa7d4), (0xa7f1, 0xa7f1), (0xfbc3, 0xfbd2),
    (0xfd90, 0xfd91), (0xfdc8, 0xfdce), (0x10940, 0x10959), (0x10d69, 0x10d6d), (0x10ec5, 0x10eff),
    (0x113ce, 0x113d0), (0x11b60, 0x11b67), (0x11db0, 0x11de9), (0x11f41, 0x11f42), (0x1612f, 0x1612f),
    (0x16ea0, 0x16ed3), (0x16ff2, 0x16ff6), (0x187f8, 0x187ff), (0x18d09, 0x18df2), (0x1ccfa, 0x1cef0),
    (0x1e08f, 0x1e08f), (0x1e4ec, 0x1e6ff), (0x1f6d8, 0x1f6d8), (0x1f777, 0x1f77a), (0x1f8d0, 0x1f8d8),
    (0x1fa54, 0x1fa57), (0x1fa8a, 0x1fa8e), (0x1fac8, 0x1facd), (0x1faea, 0x1faef), (0x1fbfa, 0x1fbfa),
    (0x2b73b, 0x2b73f), (0x2cea2, 0x2cead), (0x323b0, 0x33479),
)  # fmt: skip

# Combining marks that gigatoken puts in order when it composes a text, and `tokenizers` does not.
_NEW_MARKS = (
    (0x7fd, 0x7fd), (0x898, 0x89f), (0x8ca, 0x8d3), (0x9fe, 0x9fe), (0xc3c, 0xc3c), (0xd3b, 0xd3c), (0xeba, 0xeba),
    (0x1715, 0x1715), (0x1abf, 0x1ace), (0x1df6, 0x1dfa), (0xa82c, 0xa82c), (0x10d24, 0x10d27), (0x10eab, 0x10eac),
    (0x10f46, 0x10f50), (0x10f82, 0x10f85), (0x11070, 0x11070), (0x1133b, 0x1133b), (0x1145e, 0x1145e),
    (0x11839, 0x1183a), (0x11930, 0x11930), (0x11935, 0x11935), (0x11938, 0x11938), (0x1193d, 0x1193e),
    (0x11943, 0x11943), (0x119e0, 0x119e0), (0x11a34, 0x11a34), (0x11a47, 0x11a47), (0x11a99, 0x11a99),
    (0x11d42, 0x11d42), (0x11d44, 0x11d45), (0x11d97, 0x11d97), (0x16ff0, 0x16ff1), (0x1e130, 0x1e136),
    (0x1e2ae, 0x1e2ae), (0x1e2ec, 0x1e2ef),
)  # fmt: skip


def check_gigatoken_support(backend: Any) -> None:
    """Accept a tokenizer that is encoded alike.

    Args:
        backend: the `tokenizers.Tokenizer`.

    Raises:
        EngineRefusedError: with what may be encoded differently.
    """
    model, tokens, parts = backend.model, backend.get_added_tokens_decoder().values(), backend_parts(backend)
    kind = type(model).__name__
    _require(kind == "BPE", f"is no BPE but {kind}")
    for name in ("dropout", "end_of_word_suffix", "continuing_subword_prefix"):
        _require(not getattr(model, name), f"has {name}")
    _require(not backend.encode_special_tokens, "splits special tokens")
    for token in tokens:
        strips_space = (token.lstrip or token.rstrip) and any(map(str.isspace, token.content))
        plain = token.content and not token.single_word and not strips_space
        _require(bool(plain), f"looks at what stands beside {token.content!r}")
    _require(_adds_around(parts["post_processor"]), "has an unusual post-processor")
    if model.byte_fallback:
        _check_sentencepiece(model, parts)
    else:
        _check_byte_level(backend, {token.normalized for token in tokens}, parts)


def _check_sentencepiece(model: Any, parts: Mapping[str, Any]) -> None:
    """BPE over characters, spaces written as U+2581, unknown characters as bytes (Llama 2, Mistral)."""
    normalizer, pre_tokenizer = parts["normalizer"], parts["pre_tokenizer"]
    prepended = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    by_normalizer = pre_tokenizer is None and normalizer == {"type": "Sequence", "normalizers": prepended}
    by_metaspace = normalizer is None and pre_tokenizer is not None and pre_tokenizer["type"] == "Metaspace"
    _require(by_normalizer or (by_metaspace and pre_tokenizer["replacement"] == "▁"), _UNUSUAL_SPLIT)
    _require(not model.ignore_merges, "has ignore_merges")
    _require(all(model.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256)), "lacks the token of a byte")


def _check_byte_level(backend: Any, normalized: Collection[bool], parts: Mapping[str, Any]) -> None:
    normalizer = parts["normalizer"]
    _require(normalizer in (None, {"type": "NFC"}), "normalizes text in an unusual way")
    _require(len(normalized) <= 1 and not (normalizer and True in normalized), "looks for tokens in normalized text")
    _require(_splits_as_known(parts["pre_tokenizer"]), _UNUSUAL_SPLIT)
    vocabulary = backend.get_vocab(with_added_tokens=False)
    odd = set("".join(vocabulary)).difference(BYTE_CHARACTERS)
    if odd:
        contents = {token.content for token in backend.get_added_tokens_decoder().values()}
        keys = [key for key in vocabulary if not odd.isdisjoint(key) and key not in contents]
        _require(not keys, f"has {len(keys)} tokens that are no sequences of bytes, like {keys[:1]}")


def check_word_splitting(backend: Any) -> None:
    """Accept a tokenizer of bytes that sees a word at a time, by a split pattern that is known.

    Args:
        backend: the `tokenizers.Tokenizer`.

    Raises:
        EngineRefusedError: it may see more, or in another way.
    """
    model, tokens, parts = backend.model, backend.get_added_tokens_decoder().values(), backend_parts(backend)
    _require(type(model).__name__ == "BPE" and not model.byte_fallback, "is no byte-level BPE")
    _require(not model.dropout, "has dropout")
    _require(parts["normalizer"] in (None, {"type": "NFC"}), "normalizes text in an unusual way")
    _require(all(token.content.isascii() or not token.normalized for token in tokens), "looks for tokens that compose")
    pre_tokenizer = parts["pre_tokenizer"]
    if pre_tokenizer is not None and pre_tokenizer["type"] == "Sequence":
        steps = [step for step in pre_tokenizer["pretokenizers"] if step["type"] != "Digits"]
        pre_tokenizer = steps[0] if len(steps) == 1 else {**pre_tokenizer, "pretokenizers": steps}
    _require(_splits_as_known(pre_tokenizer), _UNUSUAL_SPLIT)


def _splits_as_known(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    if pre_tokenizer is None:
        return False
    if pre_tokenizer["type"] == "ByteLevel":
        return bool(pre_tokenizer["use_regex"]) and not pre_tokenizer["add_prefix_space"]
    steps: Sequence[Mapping[str, Any]] = pre_tokenizer.get("pretokenizers", ())
    if len(steps) < 2 or steps[-1]["type"] != "ByteLevel":
        return False
    if steps[-1]["use_regex"] or steps[-1]["add_prefix_space"] or any(step["type"] != "Split" for step in steps[:-1]):
        return False
    patterns = tuple(step["pattern"].get("Regex") for step in steps[:-1])
    ways = {(step["behavior"], step["invert"]) for step in steps[:-1]}
    if len(patterns) == 1:
        return patterns[0] in _SPLITS and ways <= {("Isolated", False), ("Removed", True)}
    return patterns == _DEEPSEEK and ways == {("Isolated", False)}


def _adds_around(post_processor: Mapping[str, Any] | None) -> bool:
    """Whether a post-processor at most puts tokens around a text."""
    if post_processor is None:
        return True
    if post_processor["type"] == "Sequence":
        return all(map(_adds_around, post_processor["processors"]))
    if post_processor["type"] == "TemplateProcessing":
        return [piece["Sequence"]["id"] for piece in post_processor["single"] if "Sequence" in piece] == ["A"]
    return post_processor["type"] in _POST_PROCESSORS


def classify_characters(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """What the characters of each text ask for: PLAIN, COMPOSABLE or UNSAFE, the most of them; shape (texts,)."""
    asked = np.zeros(len(texts), np.uint8)
    others = [index for index, text in enumerate(texts) if not text.isascii()]
    if others:
        points = np.frombuffer("".join([texts[index] for index in others]).encode("utf-32-le"), np.uint32)
        starts = lengths_to_offsets(np.fromiter((len(texts[index]) for index in others), np.int64, len(others)))[:-1]
        asked[others] = np.maximum.reduceat(_scrutiny()[points], starts)
    return asked


@cache
def _scrutiny() -> npt.NDArray[np.uint8]:
    """By code point, shape (0x110000,)."""
    table = np.full(0x110000, COMPOSABLE, np.uint8)
    for first, last in _INERT:
        table[first : last + 1] = PLAIN
    for first, last in (*_NEW_CHARACTERS, *_NEW_MARKS):
        table[first : last + 1] = UNSAFE
    return table


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UnsupportedByEngineError(f"it {otherwise}")
