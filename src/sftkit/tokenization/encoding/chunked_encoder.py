"""Encodes texts of many megabytes in chunks: `tokenizers` needs some 500 bytes of memory per character of one text.

A text is cut only where cutting cannot change its tokens, for the tokenizers that `check_word_splitting` accepts. At
such a position, their split pattern starts a new word whatever comes before, and starts the same word if nothing comes
before. The positions used are: before a space and an English word; before an English or Chinese word after a single
line end; before Chinese punctuation between Chinese characters. Positions that an added token touches are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sftkit.core.rows import Ids, Mask, Ragged
from sftkit.tokenization.encoding.fast.split_patterns import check_word_splitting
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.encoding.spans import Span, TokensWithOffsets, tokens_in_spans
from sftkit.tokenization.encoding.surrounding_tokens import SurroundingTokens
from sftkit.tokenization.engines import UnsupportedByEngineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MIN_CHUNK_CHARACTERS = 1 << 20
"""Length of the shortest chunk. Texts up to this length are encoded whole."""

MAX_CHUNK_CHARACTERS = 1 << 23
"""Length of the longest text that is encoded whole because it cannot be cut. It takes some 4 GB."""

_CHINESE, _PUNCTUATION = "\u4e00-\u9fa5", "，。！？；：、"
_CUTS = re.compile(
    rf"(?<=[!-~])(?= [A-Za-z])|(?<=[!-~{_CHINESE}{_PUNCTUATION}]\n)(?=[A-Za-z{_CHINESE}])"
    rf"|(?<=[{_CHINESE}])(?=[{_PUNCTUATION}][{_CHINESE}])"
)


class TextChunker:
    """Cuts long texts for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check the tokenizer.

        Raises:
            UnsupportedByEngineError: cutting texts may change their tokens.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UnsupportedByEngineError("it is a Python tokenizer")
        check_word_splitting(backend)
        self._added_tokens = [token.content for token in backend.get_added_tokens_decoder().values()]

    def bounds(self, text: str) -> list[int]:
        """Return the edges of the chunks, from 0 to the length of the text.

        Only the last chunk may be shorter than `MIN_CHUNK_CHARACTERS`; chunks are longer where no cut is possible.
        """
        bounds = [0]
        while len(text) - bounds[-1] > MIN_CHUNK_CHARACTERS:
            cuts = (match.start() for match in _CUTS.finditer(text, bounds[-1] + MIN_CHUNK_CHARACTERS))
            bounds.append(next((cut for cut in cuts if self._is_allowed(text, cut)), len(text)))
        return bounds if bounds[-1] == len(text) else [*bounds, len(text)]

    def last_cut(self, text: str, start: int, stop: int) -> int | None:
        """Return the last position in [start, stop) where `text[:stop]` can be cut without changing its tokens."""
        cuts = [match.start() for match in _CUTS.finditer(text, start, stop)]
        return next((cut for cut in reversed(cuts) if self._is_allowed(text[:stop], cut)), None)

    def _is_allowed(self, text: str, cut: int) -> bool:
        """Return whether no added token touches a position."""
        return not any(token in text[max(cut - len(token), 0) : cut + len(token) + 1] for token in self._added_tokens)


class ChunkedEncoder:
    """The reference encoder for texts of any length: it encodes long texts in chunks."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, whole: ReferenceEncoder) -> None:
        """Prepare for a tokenizer.

        Args:
            tokenizer: the tokenizer.
            whole: encodes texts whole; it is used for short texts and for chunks.

        Raises:
            UnsupportedByEngineError: cutting texts may change their tokens, or the post-processor does more than add
                the same tokens around every text.
        """
        self.name = whole.name
        self._whole = whole
        self._chunker = TextChunker(tokenizer)
        self._surrounding = SurroundingTokens.learn(whole)
        self._truncates_right = tokenizer.truncation_side == "right"

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """Return `tokenizer(text)["input_ids"]` of each text, truncated to `limit` tokens."""
        added = self._surrounding.count if add_special_tokens else 0
        text_limit = None if limit is None else limit - added
        if _are_short(texts) or (text_limit is not None and text_limit < 0):
            return self._whole.encode(texts, add_special_tokens=add_special_tokens, limit=limit)
        ids = _concatenate([self._ids(text, text_limit) for text in texts])
        return self._surrounding.add_to_ids(ids) if added else ids

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """Encode texts and find the tokens in spans of them, by the offsets of the tokens."""
        if _are_short(texts):
            return self._whole.encode_spans(texts, spans, add_special_tokens=add_special_tokens)
        rows = [self._ids_with_offsets(text) for text in texts]
        masks = [
            tokens_in_spans(row, [len(text)], [row_spans])
            for row, text, row_spans in zip(rows, texts, spans, strict=True)
        ]
        ids, inside = _concatenate([row.ids.values for row in rows]), np.concatenate(masks)
        if add_special_tokens and self._surrounding.count:
            return self._surrounding.add_to_ids(ids), self._surrounding.add_to_mask(ids, inside)
        return ids, inside

    def longest_chunk(self, text: str) -> int:
        """Return the length of the longest chunk of a text, in characters."""
        return int(np.diff(self._chunker.bounds(text)).max(initial=0))

    def _chunks(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield the start and the text of each chunk."""
        yield from ((start, text[start:stop]) for start, stop in pairwise(self._chunker.bounds(text)))

    def _ids(self, text: str, limit: int | None) -> Ids:
        """Return the ids of a text without added tokens, truncated to `limit`."""
        parts, count = [np.zeros(0, np.int32)], 0
        for _, chunk in self._chunks(text):
            parts.append(self._whole.encode([chunk], add_special_tokens=False).values)
            count += len(parts[-1])
            if limit is not None and self._truncates_right and count >= limit:
                break
        ids = np.concatenate(parts)
        if limit is None or len(ids) <= limit:
            return ids
        return ids[:limit] if self._truncates_right else ids[len(ids) - limit :]

    def _ids_with_offsets(self, text: str) -> TokensWithOffsets:
        """Return the ids of a text without added tokens, and the characters of each token."""
        parts = [
            (start, self._whole.encode_with_offsets([chunk], add_special_tokens=False))
            for start, chunk in self._chunks(text)
        ]
        return TokensWithOffsets(
            _concatenate([np.concatenate([part.ids.values for _, part in parts])]),
            np.concatenate([part.starts + start for start, part in parts]),
            np.concatenate([part.ends + start for start, part in parts]),
        )


def _are_short(texts: Sequence[str]) -> bool:
    return all(len(text) <= MIN_CHUNK_CHARACTERS for text in texts)


def _concatenate(rows: Sequence[Ids]) -> Ragged:
    return Ragged.from_lengths(np.concatenate(rows), np.array(list(map(len, rows)), np.int64))
