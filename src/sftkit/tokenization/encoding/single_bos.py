"""One BOS at the start of a text: tokenizers add one even if the text, from a template, begins with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sftkit.core.rows import Mask, Ragged, ragged_where
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SingleBosEncoder:
    """Encodes as another encoder, but removes the added BOS from texts that begin with the BOS token."""

    def __init__(self, encoder: Encoder, bos: str, bos_id: int) -> None:
        self.name = encoder.name
        self._encoder = encoder
        self._bos, self._bos_id = bos, bos_id

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """Return the ids of each text, truncated to `limit` tokens."""
        begun = self._begin_with_bos(texts) if add_special_tokens else np.zeros(len(texts), np.bool_)
        if limit is None or not begun.any():
            ids = self._encoder.encode(texts, add_special_tokens=add_special_tokens, limit=limit)
            return ids.select(~self._added(ids, begun))
        # With the tokens that are removed, the texts may be one token longer.
        longer, others = _where(begun, texts), _where(~begun, texts)
        ids = self._encoder.encode(longer, limit=limit + 1)
        ids = ids.select(~self._added(ids, np.ones(len(ids), np.bool_)))
        cut = ids.lengths > limit  # on the left: the BOS of the text is gone
        if cut.any():
            ids = ragged_where(cut, self._encoder.encode(_where(cut, longer), limit=limit), ids.filter(~cut))
        return ragged_where(begun, ids, self._encoder.encode(others, limit=limit))

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """Encode texts and find the tokens in spans of them."""
        ids, inside = self._encoder.encode_spans(texts, spans, add_special_tokens=add_special_tokens)
        if not add_special_tokens:
            return ids, inside
        kept = ~self._added(ids, self._begin_with_bos(texts))
        return ids.select(kept), inside[kept]

    def _begin_with_bos(self, texts: Sequence[str]) -> Mask:
        return np.fromiter((text.startswith(self._bos) for text in texts), np.bool_, len(texts))

    def _added(self, ids: Ragged, begun: Mask) -> Mask:
        """Return which tokens are an added BOS before that of the text, shape (total tokens,)."""
        added = np.zeros(len(ids.values), np.bool_)
        first = ids.offsets[:-1][begun & (ids.lengths > 1)]
        added[first[(ids.values[first] == self._bos_id) & (ids.values[first + 1] == self._bos_id)]] = True
        return added


def _where(chosen: Mask, texts: Sequence[str]) -> list[str]:
    return [text for text, is_chosen in zip(texts, chosen, strict=True) if is_chosen]


def with_single_bos(encoder: Encoder, tokenizer: PreTrainedTokenizerBase, reference: Encoder) -> Encoder:
    """Return an encoder that gives texts one BOS; the encoder itself if its tokenizer adds none.

    Args:
        encoder: the encoder to use.
        tokenizer: its tokenizer.
        reference: the reference for this tokenizer, which shows whether it adds a BOS.
    """
    bos, bos_id = tokenizer.bos_token, tokenizer.bos_token_id
    if not isinstance(bos, str) or not isinstance(bos_id, int):
        return encoder
    if reference.encode([""]).values[:1].tolist() != [bos_id]:
        return encoder
    return SingleBosEncoder(encoder, bos, bos_id)
