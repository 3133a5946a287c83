"""Known split patterns: how byte-level tokenizers cut a text into words before they encode each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.loading.tokenizer_identity import backend_parts

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
)
_ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"

KNOWN_PATTERNS = frozenset(
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
DEEPSEEK_PATTERNS = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"""
    "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)  # DeepSeek V3
UNKNOWN_SPLIT = "splits text in an unknown way"


def require(condition: bool, problem: str) -> None:
    """Raise `UnsupportedByEngineError` with what is wrong with "it", unless the condition holds."""
    if not condition:
        raise UnsupportedByEngineError(f"it {problem}")


def check_word_splitting(backend: Any) -> None:
    """Accept byte-level tokenizers that encode each word on its own, and split words by a known pattern.

    Args:
        backend: the `tokenizers.Tokenizer`.

    Raises:
        UnsupportedByEngineError: the tokenizer may encode several words together, or splits them in another way.
    """
    model, tokens, parts = backend.model, backend.get_added_tokens_decoder().values(), backend_parts(backend)
    require(type(model).__name__ == "BPE" and not model.byte_fallback, "is not byte-level BPE")
    require(not model.dropout, "has dropout")
    require(parts["normalizer"] in (None, {"type": "NFC"}), "normalizes text in an unknown way")
    normalized = [token for token in tokens if token.normalized and not token.content.isascii()]
    require(not normalized, "has added tokens that Unicode composition may produce")
    pre_tokenizer = parts["pre_tokenizer"]
    if pre_tokenizer is not None and pre_tokenizer["type"] == "Sequence":
        steps = [step for step in pre_tokenizer["pretokenizers"] if step["type"] != "Digits"]
        pre_tokenizer = steps[0] if len(steps) == 1 else {**pre_tokenizer, "pretokenizers": steps}
    require(has_known_pattern(pre_tokenizer), UNKNOWN_SPLIT)


def has_known_pattern(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    """Return whether a pre-tokenizer, as JSON data, splits by a known pattern and then maps bytes to characters."""
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
    behaviors = {(step["behavior"], step["invert"]) for step in steps[:-1]}
    if len(patterns) == 1:
        return patterns[0] in KNOWN_PATTERNS and behaviors <= {("Isolated", False), ("Removed", True)}
    return patterns == DEEPSEEK_PATTERNS and behaviors == {("Isolated", False)}
