"""The interface of encoders, and the reference: `tokenizers`, called through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sftkit.core.rows import Mask, Ragged
from sftkit.tokenization.encoding.spans import Span, TokensWithOffsets, tokens_in_spans
from sftkit.tokenization.loading.tokenizer_identity import disable_offset_trimming

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SpanEncoder(Protocol):
    """Encodes texts and finds the tokens in spans of them."""

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """Encode texts and find the tokens in spans of them.

        Args:
            texts: the texts.
            spans: for each text its spans in characters, ordered and disjoint.
            add_special_tokens: add the tokens of the post-processor, such as BOS.

        Returns:
            The ids, and whether each token has a character in a span: bool, shape (total tokens,).
        """


class Encoder(SpanEncoder, Protocol):
    """An engine that encodes texts. All engines give the ids of the tokenizer's own call."""

    @property
    def name(self) -> str:
        """The name of the engine in manifests."""

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """Return `tokenizer(text)["input_ids"]` of each text, truncated to `limit` tokens."""


class ReferenceEncoder:
    """Encodes with the tokenizer's own call. It changes the offset settings of the tokenizer's backend."""

    name = "tokenizers"

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            disable_offset_trimming(backend)

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """Return `tokenizer(text)["input_ids"]` of each text, truncated to `limit` tokens."""
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
        """Encode texts and find the tokens in spans of them, by the offsets of the tokens."""
        encoded = self.encode_with_offsets(texts, add_special_tokens=add_special_tokens)
        return encoded.ids, tokens_in_spans(encoded, [len(text) for text in texts], spans)

    def encode_with_offsets(self, texts: Sequence[str], *, add_special_tokens: bool) -> TokensWithOffsets:
        """Encode texts and return the characters of each token. The tokenizer must be a fast one."""
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
