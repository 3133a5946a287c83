"""Encodes texts in pieces: each piece after the first continues a text, so nothing is put in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sftkit.core.row_log import EngineDifferenceError, RowError
from sftkit.core.rows import Ids, Mask
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LEADS = ("\n", "(", ".", "1", "字")
"""Texts to put before a piece where the tokenizer puts a space before a text; the first that fits is used."""


class ContinuationEncoder:
    """Encodes texts that are cut at some positions.

    Tokenizers in the style of SentencePiece put a space before every text (Llama 2). The pieces of a text, apart from
    the first, must not get one. They are encoded after a short text, a lead, whose tokens are then removed. A lead fits
    a piece if its own tokens are the first tokens of both together.
    """

    def __init__(self, encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
        self._encoder, self._tokenizer = encoder, tokenizer

    def encode_spans(
        self, texts: Sequence[str], cuts: Sequence[Sequence[int]], spans: Sequence[Sequence[Span]]
    ) -> list[tuple[Ids, Mask] | None]:
        """Encode texts in pieces, without tokens around them, and find the tokens in spans of them.

        Args:
            texts: the texts.
            cuts: for each text where it is cut, in characters, ascending.
            spans: for each text its spans in characters, ordered and disjoint.

        Returns:
            For each text the ids and which of them are in a span, shape (tokens,); None if a piece of it cannot be
            encoded apart.
        """
        pieces: list[tuple[int, str, list[Span], bool]] = []
        for row, (text, positions, row_spans) in enumerate(zip(texts, cuts, spans, strict=True)):
            for start, stop in pairwise([0, *positions, len(text)]):
                if start < stop:
                    pieces.append((row, text[start:stop], _clipped(row_spans, start, stop), start > 0))
        encoded = self._encode_pieces(pieces)
        by_row: list[list[tuple[Ids, Mask] | None]] = [[] for _ in texts]
        for (row, *_), each in zip(pieces, encoded, strict=True):
            by_row[row].append(each)
        return [_joined(row) for row in by_row]

    def _encode_pieces(self, pieces: Sequence[tuple[int, str, list[Span], bool]]) -> list[tuple[Ids, Mask] | None]:
        found: list[tuple[Ids, Mask] | None] = [None] * len(pieces)
        todo = list(range(len(pieces)))
        for lead, ids in self._leads:
            leads = [(lead, ids) if pieces[index][3] else ("", ids[:0]) for index in todo]
            made = self._encode_some([pieces[index] for index in todo], [text for text, _ in leads])
            for index, (_, expected), each in zip(todo, leads, made, strict=True):
                if each is not None and np.array_equal(each[0][: len(expected)], expected):
                    found[index] = each[0][len(expected) :], each[1][len(expected) :]
            todo = [index for index in todo if found[index] is None]
            if not todo:
                break
        return found

    def _encode_some(
        self, pieces: Sequence[tuple[int, str, list[Span], bool]], leads: Sequence[str]
    ) -> list[tuple[Ids, Mask] | None]:
        """Encode pieces after leads; None for those whose tokens cannot be matched with characters."""
        texts = [lead + piece[1] for lead, piece in zip(leads, pieces, strict=True)]
        spans = [
            [(start + len(lead), end + len(lead)) for start, end in piece[2]]
            for lead, piece in zip(leads, pieces, strict=True)
        ]
        try:
            ids, inside = self._encoder.encode_spans(texts, spans, add_special_tokens=False)
        except EngineDifferenceError as error:
            index = None if error.index is None else pieces[error.index][0]
            raise EngineDifferenceError(error.engine, error.sample, index) from None
        except RowError:
            if len(pieces) == 1:
                return [None]
            return [self._encode_some([piece], [lead])[0] for piece, lead in zip(pieces, leads, strict=True)]
        return [(ids[row], inside[ids.offsets[row] : ids.offsets[row + 1]]) for row in range(len(ids))]

    @cached_property
    def needs_leads(self) -> bool:
        """Whether the tokenizer may put something before a text."""
        return list(self._tokenizer.convert_ids_to_tokens(self._ids("a").tolist())) not in (["a"], [b"a"])

    @cached_property
    def _leads(self) -> list[tuple[str, Ids]]:
        """The leads that can be used, with their ids; an empty one if the tokenizer puts nothing before a text."""
        if not self.needs_leads:
            return [("", np.zeros(0, np.int32))]
        found = []
        for lead in _LEADS:
            own, both = self._ids(lead), self._ids(f"{lead}a")
            if len(own) and np.array_equal(both[: len(own)], own):
                rest = self._tokenizer.convert_ids_to_tokens(both[len(own) :].tolist())
                if rest in (["a"], [b"a"]):
                    found.append((lead, own))
        return found

    def _ids(self, text: str) -> Ids:
        return self._encoder.encode([text], add_special_tokens=False).values


def _clipped(spans: Sequence[Span], start: int, stop: int) -> list[Span]:
    """Return the parts of spans in [start, stop), from its start on.

    Example:
        >>> _clipped([(1, 4), (6, 9)], 2, 8)
        [(0, 2), (4, 6)]
    """
    inner = ((max(first, start), min(after, stop)) for first, after in spans)
    return [(first - start, after - start) for first, after in inner if first < after]


def _joined(pieces: Sequence[tuple[Ids, Mask] | None]) -> tuple[Ids, Mask] | None:
    found = [piece for piece in pieces if piece is not None]
    if not found or len(found) < len(pieces):
        return None
    return np.concatenate([ids for ids, _ in found]), np.concatenate([inside for _, inside in found])
