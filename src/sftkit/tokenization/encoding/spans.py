"""Character spans -> the tokens in them -> labels. A token carries a loss when any of its characters lies in a span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Mask, Offsets, Ragged

Span = tuple[int, int]
"""[start, end) in characters of one text."""


@dataclass(frozen=True)
class TokensWithOffsets:
    """Ids of a batch of texts with the characters each token covers.

    ids: the tokens, row by row. starts, ends: int64, shape (total tokens,): token t covers characters
    [starts[t], ends[t]) of its row's text; tokens that stand for no text (an added BOS) cover [0, 0).
    """

    ids: Ragged
    starts: Offsets
    ends: Offsets


@dataclass(frozen=True)
class CharacterCounts:
    """What each token of a vocabulary of byte sequences (UTF-8) does to the count of characters, by token id.

    started: characters that begin in it, int64. starts_inside: whether it begins in the middle of a character, bool.
    """

    started: Offsets
    starts_inside: Mask


def tokens_in_spans_by_count(ids: Ragged, counts: CharacterCounts, spans: Sequence[Sequence[Span]]) -> Mask:
    """Which tokens overlap a span, when the tokens of each row lie end to end and cover its whole text.

    Args:
        ids: tokens, row by row, none that stands for no text.
        counts: of the tokenizer's vocabulary.
        spans: for each row its spans in characters, ordered and disjoint.
    """
    # All rows lie end to end as well, so one running sum places every token of the batch.
    started = counts.started[ids.values]
    ends = np.cumsum(started)
    bases = np.concatenate(([0], ends))[ids.offsets[:-1]]
    edges = _edges(spans, bases)
    # The token that holds the first byte of the first character; and the one that holds that of the character after
    # the span, which is inside too when it begins with what is left of the character before.
    first, after = np.searchsorted(ends, edges[:, 0], side="right"), np.searchsorted(ends, edges[:, 1], side="right")
    holder = np.minimum(after, len(ends) - 1)
    begins_before = (ends[holder] - started[holder] < edges[:, 1]) | counts.starts_inside[ids.values[holder]]
    bounds = np.zeros(len(ends) + 1, np.int32)
    np.add.at(bounds, first, 1)
    np.add.at(bounds, after + ((after < len(ends)) & begins_before), -1)
    inside: Mask = np.cumsum(bounds[:-1]) > 0
    return inside


def tokens_in_spans(encoded: TokensWithOffsets, text_lengths: Sequence[int], spans: Sequence[Sequence[Span]]) -> Mask:
    """Which tokens overlap a span, by the offsets of each token.

    Args:
        encoded: ids and offsets of the texts.
        text_lengths: characters of each text, shape (rows,).
        spans: for each row its spans in characters, ordered and disjoint.
    """
    # All texts laid end to end, one position apart, so that spans of different rows never touch.
    lengths = np.asarray(text_lengths, np.int64)
    bases = np.concatenate(([0], np.cumsum(lengths + 1)[:-1])) if len(lengths) else np.zeros(0, np.int64)
    edges = _edges(spans, bases)
    if not len(edges):
        return np.zeros(len(encoded.ids.values), np.bool_)
    token_bases = np.repeat(bases, encoded.ids.lengths)
    starts, ends = encoded.starts + token_bases, encoded.ends + token_bases
    candidate = np.searchsorted(edges[:, 1], starts, side="right")  # the first span that ends after the token starts
    inside: Mask = (edges[np.minimum(candidate, len(edges) - 1), 0] < ends) & (candidate < len(edges))
    return inside | _closing_tokens(encoded, inside)


def _edges(spans: Sequence[Sequence[Span]], bases: Offsets) -> Offsets:
    """Spans of all rows, each moved by its row's base, shape (spans, 2). An empty one (a turn without a word) lies in
    no token and is left out.
    """
    counts = [len(row) for row in spans]
    flat = np.fromiter((edge for row in spans for span in row for edge in span), np.int64, 2 * sum(counts))
    edges = flat.reshape(-1, 2) + np.repeat(bases, counts)[:, None]
    return edges[edges[:, 0] < edges[:, 1]]


def _closing_tokens(encoded: TokensWithOffsets, inside: Mask) -> Mask:
    """Tokens that the tokenizer itself appends (an EOS): they close the text, so they follow the last token's fate."""
    closing = np.zeros_like(inside)
    filled = np.flatnonzero(encoded.ids.lengths > 0)
    for row in filled[encoded.ends[encoded.ids.offsets[filled + 1] - 1] == 0]:
        first, last = int(encoded.ids.offsets[row]), int(encoded.ids.offsets[row + 1])
        stop = last
        while stop > first and encoded.ends[stop - 1] == 0:
            stop -= 1
        if stop > first:
            closing[stop:last] = inside[stop - 1]
    return closing
