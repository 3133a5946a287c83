"""Encodes texts that have much in common, such as the prompts of a conversation: each different piece once.

A text is cut before special tokens, which `tokenizers` searches for before anything else: what stands before and after
one is normalized, split and encoded for itself. So the tokens of a text are those of its pieces. Where this is not
certain, texts are encoded whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sftkit.core.rows import Ids
from sftkit.tokenization.encoding.chunked_encoder import ChunkedEncoder
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.engines import UnsupportedByEngineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KNOWN_CHARACTERS = 1 << 25
"""Characters of pieces whose tokens are kept."""

_LEAD = "\n"

_COMPARED_TEXTS = 64
"""So many texts are encoded whole, too, to compare."""


class PieceEncoder:
    """Encodes with the tokenizer's own call, without adding special tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, cuts: Iterable[str]) -> None:
        """Prepare for a tokenizer.

        Args:
            tokenizer: the tokenizer.
            cuts: special tokens before which texts may be cut.
        """
        whole = ReferenceEncoder(tokenizer)
        self._encoder: ReferenceEncoder | ChunkedEncoder = whole
        if tokenizer.is_fast:
            with suppress(UnsupportedByEngineError):  # long texts are then encoded whole
                self._encoder = ChunkedEncoder(tokenizer, whole)
        safe = _safe_cuts(tokenizer, cuts)
        self._cut = re.compile("|".join(map(re.escape, sorted(safe, key=len, reverse=True)))) if safe else None
        self._known: dict[str, Ids] = {}
        self._characters = 0
        self._to_compare = _COMPARED_TEXTS

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the tokens of each text, int32, shape (tokens,)."""
        divided = [self._pieces(text) for text in texts]
        if self._characters > _KNOWN_CHARACTERS:
            self._known, self._characters = {}, 0
        new = [piece for piece in dict.fromkeys(chain.from_iterable(divided)) if piece not in self._known]
        self._known.update(zip(new, self._whole(new), strict=True))
        self._characters += sum(map(len, new))
        found = [_joined([self._known[piece] for piece in pieces]) for pieces in divided]
        return self._compared(texts, found)

    def encode_continuations(self, texts: Sequence[str]) -> list[Ids]:
        """Return the tokens of texts that continue another text: without a space that the tokenizer puts before a text.

        Such a tokenizer encodes them after a line end, and the tokens of that are removed.
        """
        alone, lead, together = self._whole(["a", _LEAD, f"{_LEAD}a"])
        if len(together) != len(lead) + 1 or np.array_equal(together[len(lead) :], alone):
            return self.encode(texts)
        return [ids[len(lead) :] for ids in self._whole([_LEAD + text for text in texts])]

    def _pieces(self, text: str) -> list[str]:
        starts = [match.start() for match in self._cut.finditer(text)] if self._cut is not None else []
        edges = [0, *(start for start in starts if start), len(text)]
        return [text[start:stop] for start, stop in pairwise(edges)]

    def _compared(self, texts: Sequence[str], found: list[Ids]) -> list[Ids]:
        """Compare the first texts with themselves encoded whole; where they differ, cut no text any more."""
        if self._cut is None or not self._to_compare:
            return found
        compared = list(texts[: self._to_compare])
        self._to_compare -= len(compared)
        if all(map(np.array_equal, self._whole(compared), found)):
            return found
        self._cut, self._known = None, {}
        return self._whole(texts)

    def _whole(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._encoder.encode(texts, add_special_tokens=False)
        return [encoded[index] for index in range(len(encoded))]


def _joined(parts: Sequence[Ids]) -> Ids:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _safe_cuts(tokenizer: PreTrainedTokenizerBase, cuts: Iterable[str]) -> list[str]:
    """Return the tokens before which cutting changes nothing: the search for them finds no other token there."""
    added: dict[int, Any] = tokenizer.added_tokens_decoder if tokenizer.is_fast else {}
    plain = {
        token.content
        for token in added.values()
        if token.special and not (token.normalized or token.lstrip or token.single_word)
    }
    safe = []
    for cut in plain.intersection(cuts):
        starts = tuple(cut[:length] for length in range(1, len(cut) + 1))
        if not any(token.content[1:].endswith(starts) or cut in token.content[1:] for token in added.values()):
            safe.append(cut)
    return safe
