"""Encodes with tokenizers written in Python, which give no offsets: tokens in spans are found from ids alone.

A text is cut at its special tokens. If the ids of the pieces, concatenated, are those of the text, the edges of a
piece are edges of tokens. Inside of a piece, a position is an edge of tokens if the ids of the piece up to there are
the first ids of the piece. A token covers a position if the nearest edges before and after it are one token apart. A
text for which nothing of this holds cannot be masked.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from sftkit.core.row_log import RowError
from sftkit.core.rows import Ids, Mask, Ragged
from sftkit.errors import TokenizerError
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.encoding.surrounding_tokens import SurroundingTokens
from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.loading.special_tokens import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBES = ("Hello there, how are you?\nFine.", "one two three four", "a b c\n\nd e f")
_REACH = 64
"""Characters that are searched for the edges of a token, on either side of a position in it."""

_NOT_FOUND = "the tokens of this text cannot be matched with its characters (the tokenizer gives no offsets)"


class SlowEncoder:
    """The reference encoder for tokenizers written in Python."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, whole: ReferenceEncoder) -> None:
        self.name = whole.name
        self._tokenizer = tokenizer
        self._whole = whole
        self._special_tokens = _compile(_all_special_tokens(tokenizer))

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """Return `tokenizer(text)["input_ids"]` of each text, truncated to `limit` tokens."""
        return self._whole.encode(texts, add_special_tokens=add_special_tokens, limit=limit)

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """Encode texts and find the tokens in spans of them.

        Raises:
            RowError: the tokens of a text cannot be found; see `check`.
            TokenizerError: this holds for every text.
        """
        if not any(spans):
            ids = self.encode(texts, add_special_tokens=add_special_tokens)
            return ids, np.zeros(len(ids.values), np.bool_)
        self._check_tokenizer()
        rows = [self._locate(text, row_spans) for text, row_spans in zip(texts, spans, strict=True)]
        ids = Ragged.from_lists([row for row, _ in rows])
        inside = np.concatenate([np.zeros(0, np.bool_), *(mask for _, mask in rows)])
        if add_special_tokens:
            return self._surrounding.add_to_ids(ids), self._surrounding.add_to_mask(ids, inside)
        return ids, inside

    def check(self, text: str, spans: Sequence[Span]) -> None:
        """Check that the tokens in spans of a text can be found.

        Raises:
            RowError: they cannot.
            TokenizerError: this holds for every text.
        """
        self._check_tokenizer()
        ids, _ = self._locate(text, spans)
        added = self._surrounding.add_to_ids(Ragged.from_lists([ids])).values
        if not np.array_equal(added, self.encode([text]).values):
            raise RowError(_NOT_FOUND)

    @cached_property
    def _surrounding(self) -> SurroundingTokens:
        try:
            return SurroundingTokens.learn(self._whole)
        except UnsupportedByEngineError:
            raise TokenizerError(self._refusal) from None

    @cached_property
    def _finds_tokens(self) -> bool:
        """Whether the tokens of any of a few texts can be found."""
        for text in _PROBES:
            with suppress(RowError):
                self._locate(text, [(text.index(" "), len(text))])
                return True
        return False

    @property
    def _refusal(self) -> str:
        return (
            f"{type(self._tokenizer).__name__} is a tokenizer without character offsets whose tokens cannot be matched "
            "with the text; to make masks, use a fast tokenizer (one with a tokenizer.json)"
        )

    def _check_tokenizer(self) -> None:
        if not self._finds_tokens:
            raise TokenizerError(self._refusal)

    def _locate(self, text: str, spans: Sequence[Span]) -> tuple[Ids, Mask]:
        """Return the ids of a text without added tokens, and which of them are in spans."""
        ids = self._ids(text)
        pieces = [piece for piece in self._special_tokens.split(text) if piece] if self._special_tokens else [text]
        by_piece = self.encode(pieces, add_special_tokens=False)
        if not np.array_equal(by_piece.values, ids):
            pieces, by_piece = [text], Ragged.from_lists([ids])
        starts = [0, *accumulate(map(len, pieces))]

        def token_edges(position: int) -> tuple[int, int]:
            index = bisect_right(starts, position) - 1
            first = int(by_piece.offsets[index])
            if position == starts[index]:
                return first, first
            before, after = self._token_edges(pieces[index], by_piece[index], position - starts[index])
            return first + before, first + after

        inside = np.zeros(len(ids), np.bool_)
        for start, stop in spans:
            if start < stop:
                inside[token_edges(start)[0] : token_edges(stop)[1]] = True
        return ids, inside

    def _token_edges(self, piece: str, ids: Ids, position: int) -> tuple[int, int]:
        """Return the last edge of tokens at or before a position in a piece, and the first one at or after it.

        Raises:
            RowError: they are not found, or more than one token is between them.
        """
        at = self._tokens_before(piece, ids, position)
        if at is not None:
            return at, at
        before = self._nearest_edge(piece, ids, range(position - 1, max(position - _REACH, -1), -1))
        after = self._nearest_edge(piece, ids, range(position + 1, min(position + _REACH, len(piece)) + 1))
        if before is None or after is None or after - before != 1:
            raise RowError(_NOT_FOUND)
        return before, after

    def _nearest_edge(self, piece: str, ids: Ids, positions: Sequence[int]) -> int | None:
        counts = (self._tokens_before(piece, ids, position) for position in positions)
        return next((count for count in counts if count is not None), None)

    def _tokens_before(self, piece: str, ids: Ids, position: int) -> int | None:
        """Return the number of tokens before a position in a piece; None if it is not an edge of tokens."""
        before = self._ids(piece[:position])
        return len(before) if np.array_equal(ids[: len(before)], before) else None

    def _ids(self, text: str) -> Ids:
        return self.encode([text], add_special_tokens=False).values


def _all_special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return all special and added tokens, also those that only tokenizers in the style of tiktoken name."""
    own = getattr(tokenizer, "special_tokens", None)
    named = [token for token in own if isinstance(token, str)] if isinstance(own, Mapping) else []
    return {*special_tokens(tokenizer), *tokenizer.get_added_vocab(), *named} - {""}


def _compile(tokens: set[str]) -> re.Pattern[str] | None:
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if tokens else None
