"""Encodes conversations so that trained answers follow the tokens that their prompts have at inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sftkit.core.rows import Ids, Mask, Ragged, ragged_where
from sftkit.tokenization.encoding.boundary.continuation import ContinuationEncoder
from sftkit.tokenization.encoding.boundary.prompt_check import PromptCheck, rows_of_errors
from sftkit.tokenization.encoding.reference_encoder import Encoder, SpanEncoder
from sftkit.tokenization.encoding.spans import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class InferenceTokens(NamedTuple):
    """The tokens of conversations."""

    ids: Ragged
    inside: Mask
    """Whether each token has a character in a span, shape (total tokens,)."""
    inexact: Mask
    """The rows in which an answer does not follow the tokens of its prompt, shape (rows,)."""


class TextPieces(NamedTuple):
    """A text that is encoded in pieces."""

    cuts: Sequence[int]
    """Where the pieces end, but for the last, in characters, ascending."""
    tokens: tuple[Ids, Mask] | None
    """The ids, and which of them are in a span, shape (tokens,); None if a piece cannot be encoded apart."""


class InferenceEncoder:
    """Encodes a text at once, unless it then has other tokens for a prompt in it than the prompt alone.

    At inference, a model gets the tokens of the prompt, and adds those of the answer. A text in which they merge is cut
    where the prompt ends, and its pieces are encoded apart. So are the following prompts of the text: they contain the
    cut, and the model would get them encoded at once. Such a row is not exact.
    """

    def __init__(self, encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
        self._encoder = encoder
        self._check = PromptCheck(encoder, tokenizer)
        self._continuation = ContinuationEncoder(encoder, tokenizer)

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], ends: Sequence[Sequence[int]]
    ) -> InferenceTokens:
        """Encode rendered conversations, which contain their special tokens, and find the tokens in spans of them.

        Args:
            texts: the texts.
            spans: for each text its spans in characters, ordered and disjoint.
            ends: for each text where the prompts of its trained answers end, ascending.
        """
        ids, inside = self._encoder.encode_spans(texts, spans, add_special_tokens=False)
        pieces = self.find_pieces(texts, spans, ends, ids, inside)
        inexact = np.zeros(len(ids), np.bool_)
        inexact[list(pieces)] = [is_inexact(each, ends[row]) for row, each in pieces.items()]
        made = {row: each.tokens for row, each in pieces.items() if each.tokens is not None}
        if not made:
            return InferenceTokens(ids, inside, inexact)
        kept = np.ones(len(ids), np.bool_)
        kept[list(made)] = False
        own = [made[row] for row in sorted(made)]
        other_ids = Ragged.from_lists([each for each, _ in own])
        other_inside = Ragged(np.concatenate([each for _, each in own]), other_ids.offsets)
        return InferenceTokens(
            ragged_where(kept, ids.filter(kept), other_ids),
            ragged_where(kept, Ragged(inside, ids.offsets).filter(kept), other_inside).values,
            inexact,
        )

    def find_pieces(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Span]],
        ends: Sequence[Sequence[int]],
        ids: Ragged,
        inside: Mask,
    ) -> dict[int, TextPieces]:
        """Find the texts that have other tokens if they are encoded in pieces, given the tokens of whole texts.

        Args:
            texts: the texts.
            spans: for each text its spans; as `PromptCheck` wants them.
            ends: for each text where the prompts of its trained answers end, ascending.
            ids: the tokens of the texts.
            inside: which tokens have a character in a span.

        Returns:
            The pieces of these texts, by row.
        """
        cuts = self._check.find_cuts(texts, spans, ends, ids, inside) if any(ends) else {}
        if not cuts:
            return {}
        with rows_of_errors(list(cuts)):
            made = self._continuation.encode_spans(
                [texts[row] for row in cuts], list(cuts.values()), [spans[row] for row in cuts]
            )
        pieces = {row: TextPieces(cuts[row], tokens) for row, tokens in zip(cuts, made, strict=True)}
        return {
            row: each
            for row, each in pieces.items()
            if each.tokens is None or not np.array_equal(each.tokens[0], ids[row])
        }

    def piece_encoder(self, cuts: Sequence[int]) -> SpanEncoder:
        """Return an encoder of one text that encodes its pieces apart, for a text that has `TextPieces.tokens`."""
        return _PieceEncoder(self._continuation, cuts)


def is_inexact(pieces: TextPieces, ends: Sequence[int]) -> bool:
    """Return whether a prompt contains a cut, or merges with its answer, because they cannot be encoded apart.

    Example:
        >>> tokens = np.array([7, 8]), np.array([False, True])
        >>> [is_inexact(TextPieces([cut], tokens), [4, 9]) for cut in (4, 9)]
        [True, False]
    """
    return pieces.tokens is None or pieces.cuts[0] < ends[-1]


class _PieceEncoder:
    """Encodes one text, any number of times, in pieces."""

    def __init__(self, continuation: ContinuationEncoder, cuts: Sequence[int]) -> None:
        self._continuation, self._cuts = continuation, cuts

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """Encode the text as often as it is given, and find the tokens in spans of it."""
        made = self._continuation.encode_spans(texts, [self._cuts] * len(texts), spans)
        rows = [each for each in made if each is not None]
        return Ragged.from_lists([ids for ids, _ in rows]), np.concatenate([inside for _, inside in rows])
