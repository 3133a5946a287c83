"""Texts -> flat ids, and which of them lie in given spans of the texts. The reference: transformers' `tokenizers`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sftkit.core.rows import Mask, Ragged
from sftkit.errors import TokenizerError
from sftkit.tokenization.encoding.spans import Span, TokensWithOffsets, tokens_in_spans
from sftkit.tokenization.tokenizer_loading import disable_offset_trimming

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Encoder(Protocol):
    """An engine that encodes. Whichever it is, the ids are those of the tokenizer's own call."""

    @property
    def name(self) -> str:
        """What the manifest calls it."""

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """`tokenizer(text)["input_ids"]` of each text, cut to `limit` tokens."""

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """The same ids, and which tokens have a character in a span of their text: bool, shape (total tokens,)."""


class ReferenceEncoder:
    """Encodes as the tokenizer's own call does. Takes the tokenizer over: settings of its backend are changed."""

    name = "tokenizers"

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            disable_offset_trimming(backend)

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """`tokenizer(text)["input_ids"]` of each text, cut to `limit` tokens."""
        if not texts:
            return Ragged.from_lists([])
        called = self._tokenizer(
            list(texts),
            add_special_tokens=add_special_tokens,
            truncation=limit is not None,
            max_length=limit,
            return_attention_mask=False,
            verbose=False,
        )
        return Ragged.from_lists(called["input_ids"])

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """The same ids, and which tokens have a character in a span of their text: bool, shape (total tokens,).

        Raises:
            TokenizerError: the tokenizer is a slow one, which knows no offsets.
        """
        encoded = self.encode_with_offsets(texts, add_special_tokens=add_special_tokens)
        return encoded.ids, tokens_in_spans(encoded, [len(text) for text in texts], spans)

    def encode_with_offsets(self, texts: Sequence[str], *, add_special_tokens: bool) -> TokensWithOffsets:
        """The same ids, and the characters of each token.

        Raises:
            TokenizerError: the tokenizer is a slow one, which knows no offsets.
        """
        if not self._tokenizer.is_fast:
            raise TokenizerError(
                f"{type(self._tokenizer).__name__} is a Python tokenizer without character offsets; "
                "masks need a fast tokenizer (a tokenizer.json)"
            )
        if not texts:
            nothing = np.zeros(0, np.int64)
            return TokensWithOffsets(Ragged.from_lists([]), nothing, nothing)
        called = self._tokenizer(
            list(texts),
            add_special_tokens=add_special_tokens,
            return_attention_mask=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        ids = Ragged.from_lists(called["input_ids"])
        total = len(ids.values)
        edges = chain.from_iterable(chain.from_iterable(called["offset_mapping"]))
        pairs = np.fromiter(edges, np.int64, 2 * total).reshape(total, 2)
        return TokensWithOffsets(ids, pairs[:, 0], pairs[:, 1])
