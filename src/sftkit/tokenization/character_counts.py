"""The characters in the tokens of a byte-level vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np

from sftkit.rows import offsets_of
from sftkit.tokenization.bare_ids import BareIds
from sftkit.tokenization.loading import parts_of
from sftkit.tokenization.masks import CharacterCounts


def character_counts(backend: Any, engine: BareIds) -> CharacterCounts | None:
    """The counts for a `tokenizers` backend, whose tokens `engine` knows; None where tokens are not simply bytes."""
    parts = parts_of(backend)
    normalizer, pre_tokenizer = parts["normalizer"], parts["pre_tokenizer"]
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer and "pretokenizers" in pre_tokenizer else [pre_tokenizer]
    byte_level = [step for step in steps if step and step["type"] == "ByteLevel"]
    if not byte_level or any(step["add_prefix_space"] for step in byte_level):
        return None
    if normalizer not in (None, {"type": "NFC"}):  # others may add characters as well as take some away
        return None
    model = backend.model
    if type(model).__name__ != "BPE" or model.continuing_subword_prefix or model.end_of_word_suffix:
        return None
    vocabulary = engine.vocabulary()
    if model.unk_token is not None and len({t for t in vocabulary.values() if len(t) == 1}) < 256:
        return None  # the unknown token could stand for anything; without one, an unknown byte is simply not there
    lengths = np.zeros(max(vocabulary) + 1, np.int64)
    lengths[list(vocabulary)] = np.fromiter(map(len, vocabulary.values()), np.int64, len(vocabulary))
    order = sorted(vocabulary)
    begins = (np.frombuffer(b"".join([vocabulary[token_id] for token_id in order]), np.uint8) & 0xC0) != 0x80
    starts = offsets_of(lengths)
    running = np.concatenate(([0], np.cumsum(begins)))
    continues = (lengths > 0) & ~np.append(begins, True)[starts[:-1]]
    return CharacterCounts(running[starts[1:]] - running[starts[:-1]], continues)
