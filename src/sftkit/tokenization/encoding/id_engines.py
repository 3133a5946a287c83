"""Engines that give the ids of texts without special tokens and offsets: gigatoken, and `tokenizers` in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sftkit.core.error_text import first_line
from sftkit.core.rows import Ragged, lengths_to_offsets
from sftkit.sandbox.memory import resident_bytes
from sftkit.tokenization.encoding.byte_level import BYTE_OF_CHARACTER
from sftkit.tokenization.encoding.gigatoken_support import check_gigatoken_support
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import CharacterCounts
from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.tokenizer_loading import backend_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MAX_GROWTH = 96 << 20
"""Bytes that an engine may grow before it is replaced by a new one."""


class IdEngine(Protocol):
    """Encodes texts without adding tokens."""

    @property
    def name(self) -> str:
        """The name of the engine in manifests."""

    def ids(self, texts: Sequence[str]) -> Ragged:
        """Return the ids of each text."""

    def vocabulary(self) -> dict[int, bytes]:
        """Return the bytes of each token of a byte-level vocabulary, including added tokens, by id."""


class GigatokenEngine:
    """Encodes with gigatoken (https://pypi.org/project/gigatoken/), a BPE encoder that caches the ids of words.

    It gives the ids of the `tokenizers` backend that it is made from, for the tokenizers that
    `check_gigatoken_support` accepts and texts without UNSAFE characters (`character_classes`).
    """

    name = "gigatoken"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, backend_json: str | None) -> None:
        """Load the engine.

        Raises:
            UnsupportedByEngineError: gigatoken does not support the tokenizer, or may give other ids.
        """
        if backend_json is None:
            raise UnsupportedByEngineError("it is a Python tokenizer")
        if getattr(tokenizer, "split_special_tokens", False):
            raise UnsupportedByEngineError("it splits special tokens")
        check_gigatoken_support(tokenizer.backend_tokenizer)
        self._json = backend_json
        self._engine = _load(backend_json)
        self._growth = 0

    def ids(self, texts: Sequence[str]) -> Ragged:
        """Return the ids of each text."""
        if not texts:
            return Ragged.from_lists([])
        before = resident_bytes()
        encode = self._engine.encode  # ids, uint32, shape (tokens,)
        rows = [encode(text) for text in texts]
        self._limit_memory(resident_bytes() - before)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return Ragged.from_lengths(np.concatenate(rows).astype(np.int32), lengths)

    def vocabulary(self) -> dict[int, bytes]:
        """Return the bytes of each token, by id."""
        vocabulary: dict[int, bytes] = self._engine.vocab
        return vocabulary

    def _limit_memory(self, growth: int) -> None:
        """Replace the engine if it has grown too much: it caches every word, so its memory grows with the data."""
        self._growth += max(growth, 0)
        if self._growth > _MAX_GROWTH:
            del self._engine
            self._engine = _load(self._json)
            self._growth = 0


class TokenizersEngine:
    """Encodes with the reference. It is as slow, but saves the offsets, which cost more than the ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reference: Encoder) -> None:
        self._tokenizer = tokenizer
        self._reference = reference
        self.name = reference.name

    def ids(self, texts: Sequence[str]) -> Ragged:
        """Return the ids of each text."""
        return self._reference.encode(texts, add_special_tokens=False)

    def vocabulary(self) -> dict[int, bytes]:
        """Return the bytes of each token, by id; UTF-8 for a token that is not written in byte characters."""
        backend = self._tokenizer.backend_tokenizer
        tokens = backend.get_vocab(with_added_tokens=False).items()
        vocabulary = {token_id: _token_bytes(token) for token, token_id in tokens}
        added = backend.get_added_tokens_decoder().items()
        return {**vocabulary, **{token_id: token.content.encode() for token_id, token in added}}


def _token_bytes(token: str) -> bytes:
    if BYTE_OF_CHARACTER.keys() >= set(token):
        return bytes([BYTE_OF_CHARACTER[character] for character in token])
    return token.encode()


def _load(backend_json: str) -> Any:
    try:
        from gigatoken.gigatoken_rs import load_hf_json

        return load_hf_json(backend_json)
    except Exception as error:  # also if there is no build for this machine
        raise UnsupportedByEngineError(first_line(error)) from None


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
