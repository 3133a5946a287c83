"""Counts the characters in each token of a byte-level vocabulary, which stand in for the offsets of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from sftkit.core.rows import lengths_to_offsets
from sftkit.tokenization.encoding.fast.id_engines import IdEngine
from sftkit.tokenization.encoding.spans import CharacterCounts
from sftkit.tokenization.loading.tokenizer_identity import backend_parts


def count_characters(backend: Any, engine: IdEngine) -> CharacterCounts | None:
    """Count the characters in each token of a vocabulary.

    Args:
        backend: the `tokenizers.Tokenizer`.
        engine: knows the bytes of its tokens.

    Returns:
        The counts; None if the tokens of a text may not be its bytes.
    """
    parts = backend_parts(backend)
    normalizer, pre_tokenizer = parts["normalizer"], parts["pre_tokenizer"]
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer and "pretokenizers" in pre_tokenizer else [pre_tokenizer]
    byte_level = [step for step in steps if step and step["type"] == "ByteLevel"]
    if not byte_level or any(step["add_prefix_space"] for step in byte_level):
        return None
    if normalizer not in (None, {"type": "NFC"}):  # others may add characters as well as remove some
        return None
    model = backend.model
    if type(model).__name__ != "BPE" or model.continuing_subword_prefix or model.end_of_word_suffix:
        return None
    vocabulary = engine.vocabulary()
    if model.unk_token is not None and len({t for t in vocabulary.values() if len(t) == 1}) < 256:
        return None  # the unknown token may stand for any bytes; without one, unknown bytes are just omitted
    lengths = np.zeros(max(vocabulary) + 1, np.int64)
    lengths[list(vocabulary)] = np.fromiter(map(len, vocabulary.values()), np.int64, len(vocabulary))
    all_bytes = np.frombuffer(b"".join([vocabulary[token_id] for token_id in sorted(vocabulary)]), np.uint8)
    starts_character = (all_bytes & 0xC0) != 0x80  # UTF-8 continuation bytes are 0b10xxxxxx
    offsets = lengths_to_offsets(lengths)
    running = np.concatenate(([0], np.cumsum(starts_character)))
    starts_inside = (lengths > 0) & ~np.append(starts_character, True)[offsets[:-1]]
    return CharacterCounts(running[offsets[1:]] - running[offsets[:-1]], starts_inside)
