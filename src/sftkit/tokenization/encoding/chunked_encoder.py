"""Encode texts of many megabytes in chunks: `tokenizers` needs some 500 bytes of memory per character of one call.

A text is cut only at places where cutting cannot change its tokens, for the tokenizers that `check_word_splitting`
accepts. At such a place the split pattern starts a new word whatever comes before it, and starts the same word when
nothing comes before it. The places used: before an English word that follows a space or a single line end; before a
Chinese character that follows a single line end; before a Chinese comma or full stop. A place that an added token
touches is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sftkit.core.rows import Ids, Mask, Ragged
from sftkit.tokenization.encoding.gigatoken_support import check_word_splitting
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.encoding.spans import Span, TokensWithOffsets, tokens_in_spans
from sftkit.tokenization.encoding.surrounding_tokens import SurroundingTokens
from sftkit.tokenization.engines import UnsupportedByEngineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MIN_CHUNK_CHARACTERS = 1 << 20
"""Characters of a piece, at least. A text that is not longer is encoded whole."""

MAX_CHUNK_CHARACTERS = 1 << 23
"""Characters of the longest text that is encoded whole, for want of a place to cut it: takes some 4 GB."""

_CHINESE, _ENDS = "\u4e00-\u9fa5", "，。！？；：、"
_PLACES = re.compile(
    rf"(?<=[!-~])(?= [A-Za-z])|(?<=[!-~{_CHINESE}{_ENDS}]\n)(?=[A-Za-z{_CHINESE}])"
    rf"|(?<=[{_CHINESE}])(?=[{_ENDS}][{_CHINESE}])"
)


class TextChunker:
    """Cuts long texts for one tokenizer.

    Raises:
        EngineRefusedError: the tokenizer may see more than a word at a time.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UnsupportedByEngineError("it is a Python tokenizer")
        check_word_splitting(backend)
        self._tokens = [token.content for token in backend.get_added_tokens_decoder().values()]

    def bounds(self, text: str) -> list[int]:
        """Return the edges of the chunks, from 0 to the length of the text; only the last chunk may be shorter than
        `MIN_CHUNK_CHARACTERS`.
        """
        bounds = [0]
        while len(text) - bounds[-1] > MIN_CHUNK_CHARACTERS:
            places = (match.start() for match in _PLACES.finditer(text, bounds[-1] + MIN_CHUNK_CHARACTERS))
            place = next((place for place in places if self._is_free(text, place)), len(text))
            bounds.append(place)
        return bounds if bounds[-1] == len(text) else [*bounds, len(text)]

    def _is_free(self, text: str, place: int) -> bool:
        """Whether no added token touches a place."""
        return not any(token in text[max(place - len(token), 0) : place + len(token) + 1] for token in self._tokens)


class ChunkedEncoder:
    """Encodes as a reference encoder does, long texts piece by piece.

    Raises:
        EngineRefusedError: texts of this tokenizer cannot be cut, or it does more around a text than put tokens before
            and after it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, whole: ReferenceEncoder) -> None:
        self.name = whole.name
        self._whole = whole
        self._cutter = TextChunker(tokenizer)
        self._added = SurroundingTokens.learn(whole)
        self._cuts_right = tokenizer.truncation_side == "right"

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """`tokenizer(text)["input_ids"]` of each text, cut to `limit` tokens."""

        def whole(some: Sequence[str]) -> Ragged:
            return self._whole.encode(some, add_special_tokens=add_special_tokens, limit=limit)

        added = self._added.count if add_special_tokens else 0
        room = None if limit is None else limit - added
        if _all_short(texts) or (room is not None and room < 0):
            return self._whole.encode(texts, add_special_tokens=add_special_tokens, limit=limit)
        ids = _end_to_end([self._ids(text, room) for text in texts])
        return self._added.add_to_ids(ids) if added else ids

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """The same ids, and which tokens have a character in a span of their text: bool, shape (total tokens,)."""
        if _all_short(texts):
            return self._whole.encode_spans(texts, spans, add_special_tokens=add_special_tokens)
        rows = [self._with_offsets(text) for text in texts]
        masks = [tokens_in_spans(row, [len(text)], [mine]) for row, text, mine in zip(rows, texts, spans, strict=True)]
        ids, inside = _end_to_end([row.ids.values for row in rows]), np.concatenate(masks)
        if add_special_tokens and self._added.count:
            return self._added.add_to_ids(ids), self._added.add_to_mask(ids, inside)
        return ids, inside

    def longest_chunk(self, text: str) -> int:
        """Characters of the longest piece that a text is encoded in."""
        return int(np.diff(self._cutter.bounds(text)).max(initial=0))

    def _pieces(self, text: str) -> Iterator[tuple[int, str]]:
        yield from ((start, text[start:stop]) for start, stop in pairwise(self._cutter.bounds(text)))

    def _ids(self, text: str, room: int | None) -> Ids:
        """Bare ids of a text, as many as there is room for, from the side that is kept."""
        made, count = [np.zeros(0, np.int32)], 0
        for _, piece in self._pieces(text):
            made.append(self._whole.encode([piece], add_special_tokens=False).values)
            count += len(made[-1])
            if room is not None and self._cuts_right and count >= room:
                break
        ids = np.concatenate(made)
        if room is None or len(ids) <= room:
            return ids
        return ids[:room] if self._cuts_right else ids[len(ids) - room :]

    def _with_offsets(self, text: str) -> TokensWithOffsets:
        """Bare ids of one text, and the characters of each token."""
        pieces = [
            (start, self._whole.encode_with_offsets([piece], add_special_tokens=False))
            for start, piece in self._pieces(text)
        ]
        return TokensWithOffsets(
            _end_to_end([np.concatenate([each.ids.values for _, each in pieces])]),
            np.concatenate([each.starts + start for start, each in pieces]),
            np.concatenate([each.ends + start for start, each in pieces]),
        )


def _all_short(texts: Sequence[str]) -> bool:
    return all(len(text) <= MIN_CHUNK_CHARACTERS for text in texts)


def _end_to_end(rows: Sequence[Ids]) -> Ragged:
    return Ragged.from_lengths(np.concatenate(rows), np.array(list(map(len, rows)), np.int64))
