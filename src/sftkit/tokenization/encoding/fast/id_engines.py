"""Engines that give the ids of texts without special tokens and offsets: gigatoken, and `tokenizers` in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sftkit.core.error_text import first_line
from sftkit.core.rows import Ragged
from sftkit.sandbox.memory import resident_bytes
from sftkit.tokenization.encoding.fast.byte_level import BYTE_OF_CHARACTER
from sftkit.tokenization.encoding.fast.gigatoken_support import check_gigatoken_support
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.engines import UnsupportedByEngineError

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
