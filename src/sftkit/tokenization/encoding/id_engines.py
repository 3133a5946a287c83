"""Texts -> bare ids, without what a post-processor adds: by gigatoken, or by `tokenizers` where gigatoken may not."""

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

_MOST_GROWTH = 96 << 20
"""Bytes that an engine may grow before it is made anew."""


class IdEngine(Protocol):
    """Something that encodes texts as they are."""

    @property
    def name(self) -> str:
        """What the manifest calls it."""

    def ids(self, texts: Sequence[str]) -> Ragged:
        """Ids of each text, nothing added."""

    def vocabulary(self) -> dict[int, bytes]:
        """The bytes of each token of a byte-level vocabulary, added tokens included, by id."""


class GigatokenEngine:
    """By gigatoken, which gives the ids of the `tokenizers` backend it is made from.

    Raises:
        EngineRefusedError: gigatoken cannot take this tokenizer, or is not known to give the same ids with it.
    """

    name = "gigatoken"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, backend_json: str | None) -> None:
        if backend_json is None:
            raise UnsupportedByEngineError("it is a Python tokenizer")
        if getattr(tokenizer, "split_special_tokens", False):
            raise UnsupportedByEngineError("it splits special tokens")
        check_gigatoken_support(tokenizer.backend_tokenizer)
        self._json = backend_json
        self._engine = _load(backend_json)
        self._grown = 0

    def ids(self, texts: Sequence[str]) -> Ragged:
        """Ids of each text, nothing added."""
        if not texts:
            return Ragged.from_lists([])
        before = resident_bytes()
        encode = self._engine.encode  # ids, uint32, shape (tokens,)
        rows = [encode(text) for text in texts]
        self._renew_when_grown(resident_bytes() - before)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return Ragged.from_lengths(np.concatenate(rows).astype(np.int32), lengths)

    def vocabulary(self) -> dict[int, bytes]:
        """The bytes of each token, by id."""
        vocabulary: dict[int, bytes] = self._engine.vocab
        return vocabulary

    def _renew_when_grown(self, grown: int) -> None:
        """gigatoken remembers every word it met; now and then it has to forget, or memory would grow with the data."""
        self._grown += max(grown, 0)
        if self._grown > _MOST_GROWTH:
            del self._engine
            self._engine = _load(self._json)
            self._grown = 0


class TokenizersEngine:
    """By the reference encoder: its ids cost what they cost, but no offsets need be made of them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reference: Encoder) -> None:
        self._tokenizer = tokenizer
        self._reference = reference
        self.name = reference.name

    def ids(self, texts: Sequence[str]) -> Ragged:
        """Ids of each text, nothing added."""
        return self._reference.encode(texts, add_special_tokens=False)

    def vocabulary(self) -> dict[int, bytes]:
        """The bytes of each token, by id; what is written in no bytes is left as the text it is."""
        backend = self._tokenizer.backend_tokenizer
        tokens = backend.get_vocab(with_added_tokens=False).items()
        vocabulary = {token_id: _bytes_of(token) for token, token_id in tokens}
        added = backend.get_added_tokens_decoder().items()
        return {**vocabulary, **{token_id: token.content.encode() for token_id, token in added}}


def _bytes_of(token: str) -> bytes:
    if BYTE_OF_CHARACTER.keys() >= set(token):
        return bytes([BYTE_OF_CHARACTER[character] for character in token])
    return token.encode()


def _load(backend_json: str) -> Any:
    try:
        from gigatoken.gigatoken_rs import load_hf_json

        return load_hf_json(backend_json)
    except Exception as error:  # also where it has no build for this machine
        raise UnsupportedByEngineError(first_line(error)) from None


def count_characters(backend: Any, engine: IdEngine) -> CharacterCounts | None:
    """The counts for a `tokenizers` backend, whose tokens `engine` knows; None where tokens are not simply bytes."""
    parts = backend_parts(backend)
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
    starts = lengths_to_offsets(lengths)
    running = np.concatenate(([0], np.cumsum(begins)))
    continues = (lengths > 0) & ~np.append(begins, True)[starts[:-1]]
    return CharacterCounts(running[starts[1:]] - running[starts[:-1]], continues)
