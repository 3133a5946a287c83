"""Ids without what makes them slow: bare ids from whichever engine may give them, and spans without offsets.

Spans need no offsets where tokens are bytes (byte-level BPE): the tokens of a row lie end to end, so the characters
that begin in each, summed up, say where each lies. That holds for a row when they add up to the row's own, and it is
checked for each: whatever a tokenizer may do to a text (composing characters, a token that swallows the space beside
it), it only ever takes characters away. A row that does not add up is encoded by the reference, offsets and all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar
from unicodedata import is_normalized

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Mask, Ragged, ragged_where
from sftkit.tokenization.encoding.gigatoken_support import COMPOSABLE, UNSAFE, classify_characters
from sftkit.tokenization.encoding.id_engines import IdEngine, count_characters
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import Span, tokens_in_spans_by_count
from sftkit.tokenization.encoding.surrounding_tokens import SurroundingTokens
from sftkit.tokenization.tokenizer_loading import backend_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


class FastEncoder:
    """Encodes by an engine that gives bare ids; a text that engine may not be trusted with goes to the reference.

    Raises:
        EngineRefusedError: the tokenizer does more around the ids than put tokens before and after them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, engine: IdEngine, reference: Encoder) -> None:
        backend = tokenizer.backend_tokenizer
        self.name = engine.name
        self._engine = engine
        self._reference = reference
        self._cuts_right = tokenizer.truncation_side == "right"
        self._composes = backend_parts(backend)["normalizer"] is not None
        self._is_byte_level = not getattr(backend.model, "byte_fallback", False)
        self._added = SurroundingTokens.learn(reference)
        self._counts = count_characters(backend, engine)

    @property
    def locates_spans_by_count(self) -> bool:
        """Whether spans are found without the offsets of the reference."""
        return self._counts is not None

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """`tokenizer(text)["input_ids"]` of each text, cut to `limit` tokens."""
        added = self._added.count if add_special_tokens else 0

        def by_reference(some: Sequence[str]) -> Ragged:
            return self._reference.encode(some, add_special_tokens=add_special_tokens, limit=limit)

        def here(some: Sequence[str]) -> Ragged:
            ids = self._engine.ids(some)
            if limit is not None:
                ids = ids.truncate(np.full(len(ids), limit - added, np.int64))
            return self._added.add_to_ids(ids) if added else ids

        if limit is not None and (limit < added or not self._cuts_right):
            return by_reference(texts)
        safe = self._asked(texts) != UNSAFE
        if safe.all():
            return here(texts)
        return ragged_where(safe, here(_where(safe, texts)), by_reference(_where(~safe, texts)))

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """The same ids, and which tokens have a character in a span of their text: bool, shape (total tokens,)."""
        if self._counts is None:
            return self._reference.encode_spans(texts, spans, add_special_tokens=add_special_tokens)
        mine = self._left_alone(texts)
        ids = self._engine.ids(_where(mine, texts))
        begun = np.append(self._counts.started[ids.values], 0)
        covered = np.add.reduceat(begun, ids.offsets[:-1]) * (ids.lengths > 0)
        exact = covered == np.fromiter(map(len, _where(mine, texts)), np.int64, len(ids))
        if not exact.all():
            ids = ids.filter(exact)
            mine[mine] = exact
        inside = tokens_in_spans_by_count(ids, self._counts, _where(mine, spans))
        if add_special_tokens and self._added.count:
            ids, inside = self._added.add_to_ids(ids), self._added.add_to_mask(ids, inside)
        if mine.all():
            return ids, inside
        other_ids, other_inside = self._reference.encode_spans(
            _where(~mine, texts), _where(~mine, spans), add_special_tokens=add_special_tokens
        )
        flags = (Ragged(inside.astype(np.int32), ids.offsets), Ragged(other_inside.astype(np.int32), other_ids.offsets))
        return ragged_where(mine, ids, other_ids), ragged_where(mine, *flags).values.astype(np.bool_)

    def _asked(self, texts: Sequence[str]) -> npt.NDArray[np.uint8]:
        """What the characters of each text ask for (see `classify_characters`)."""
        return classify_characters(texts) if self._is_byte_level else np.zeros(len(texts), np.uint8)

    def _left_alone(self, texts: Sequence[str]) -> Mask:
        """Which texts both engines know alike, and are composed already where the tokenizer composes."""
        asked = self._asked(texts)
        mine: Mask = asked != UNSAFE
        if self._composes:
            for index in np.flatnonzero(asked == COMPOSABLE).tolist():
                mine[index] = is_normalized("NFC", texts[index])
        return mine


def _where(chosen: Mask, items: Sequence[T]) -> Sequence[T]:
    return items if chosen.all() else [item for item, taken in zip(items, chosen, strict=True) if taken]
