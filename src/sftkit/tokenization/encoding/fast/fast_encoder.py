"""The fast encoder: ids from a fast engine, and tokens in spans without offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar
from unicodedata import is_normalized

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Mask, Ragged, ragged_where
from sftkit.tokenization.encoding.fast.character_classes import COMPOSABLE, UNSAFE, classify_characters
from sftkit.tokenization.encoding.fast.character_counts import count_characters
from sftkit.tokenization.encoding.fast.id_engines import IdEngine
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import Span, tokens_in_spans_by_count
from sftkit.tokenization.encoding.surrounding_tokens import SurroundingTokens
from sftkit.tokenization.loading.tokenizer_identity import backend_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


class FastEncoder:
    """Encodes with an engine that gives ids only, and gives texts that are not safe for it to the reference.

    The offsets of tokens cost more than their ids, and are not needed for byte-level BPE. Its tokens cover the text
    without gaps, so the number of characters that start in each token gives the position of every token
    (`tokens_in_spans_by_count`). A row is processed in this way if

    - no character is UNSAFE, and the text does not change if the tokenizer composes it (NFC);
    - the counts of its tokens add up to the number of its characters. Whatever else a tokenizer does to a text, such as
      an added token that swallows the space next to it, it only removes characters. So equal sums mean that nothing was
      removed, and every position is right.

    The reference encodes all other rows, with offsets.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, engine: IdEngine, reference: Encoder) -> None:
        """Prepare for a tokenizer.

        Raises:
            UnsupportedByEngineError: the post-processor does more than add the same tokens around every text.
        """
        backend = tokenizer.backend_tokenizer
        self.name = engine.name
        self._engine = engine
        self._reference = reference
        self._truncates_right = tokenizer.truncation_side == "right"
        self._composes = backend_parts(backend)["normalizer"] is not None
        self._is_byte_level = not getattr(backend.model, "byte_fallback", False)
        self._surrounding = SurroundingTokens.learn(reference)
        self._counts = count_characters(backend, engine)

    @property
    def locates_spans_by_count(self) -> bool:
        """Whether tokens in spans are found without offsets."""
        return self._counts is not None

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """Return `tokenizer(text)["input_ids"]` of each text, truncated to `limit` tokens."""
        added = self._surrounding.count if add_special_tokens else 0

        def by_reference(some: Sequence[str]) -> Ragged:
            return self._reference.encode(some, add_special_tokens=add_special_tokens, limit=limit)

        def by_engine(some: Sequence[str]) -> Ragged:
            ids = self._engine.ids(some)
            if limit is not None:
                ids = ids.truncate(np.full(len(ids), limit - added, np.int64))
            return self._surrounding.add_to_ids(ids) if added else ids

        if limit is not None and (limit < added or not self._truncates_right):
            return by_reference(texts)
        is_safe = self._classify(texts) != UNSAFE
        if is_safe.all():
            return by_engine(texts)
        return ragged_where(is_safe, by_engine(_where(is_safe, texts)), by_reference(_where(~is_safe, texts)))

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """Encode texts and find the tokens in spans of them."""
        if self._counts is None:
            return self._reference.encode_spans(texts, spans, add_special_tokens=add_special_tokens)
        by_count = self._unchanged_by_tokenizer(texts)
        ids = self._engine.ids(_where(by_count, texts))
        started = np.append(self._counts.started[ids.values], 0)
        covered = np.add.reduceat(started, ids.offsets[:-1]) * (ids.lengths > 0)
        adds_up = covered == np.fromiter(map(len, _where(by_count, texts)), np.int64, len(ids))
        if not adds_up.all():
            ids = ids.filter(adds_up)
            by_count[by_count] = adds_up
        inside = tokens_in_spans_by_count(ids, self._counts, _where(by_count, spans))
        if add_special_tokens and self._surrounding.count:
            ids, inside = self._surrounding.add_to_ids(ids), self._surrounding.add_to_mask(ids, inside)
        if by_count.all():
            return ids, inside
        other_ids, other_inside = self._reference.encode_spans(
            _where(~by_count, texts), _where(~by_count, spans), add_special_tokens=add_special_tokens
        )
        masks = (Ragged(inside.astype(np.int32), ids.offsets), Ragged(other_inside.astype(np.int32), other_ids.offsets))
        return ragged_where(by_count, ids, other_ids), ragged_where(by_count, *masks).values.astype(np.bool_)

    def _classify(self, texts: Sequence[str]) -> npt.NDArray[np.uint8]:
        """Return the class of each text (`character_classes`), shape (texts,)."""
        return classify_characters(texts) if self._is_byte_level else np.zeros(len(texts), np.uint8)

    def _unchanged_by_tokenizer(self, texts: Sequence[str]) -> Mask:
        """Return which texts have no UNSAFE character and do not change if the tokenizer composes them."""
        classes = self._classify(texts)
        unchanged: Mask = classes != UNSAFE
        if self._composes:
            for index in np.flatnonzero(classes == COMPOSABLE).tolist():
                unchanged[index] = is_normalized("NFC", texts[index])
        return unchanged


def _where(chosen: Mask, items: Sequence[T]) -> Sequence[T]:
    return items if chosen.all() else [item for item, is_chosen in zip(items, chosen, strict=True) if is_chosen]
