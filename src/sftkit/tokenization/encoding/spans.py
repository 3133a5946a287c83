"""From spans of characters to tokens: a token is in a span if any of its characters is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Mask, Offsets, Ragged

Span = tuple[int, int]
"""[start, end) in characters of one text."""


@dataclass(frozen=True)
class TokensWithOffsets:
    """Ids of a batch of texts, with the characters of each token."""

    ids: Ragged
    starts: Offsets
    """int64, shape (total tokens,): token t covers the characters [starts[t], ends[t]) of its text."""
    ends: Offsets
    """As `starts`; tokens that represent no text, such as an added BOS, cover [0, 0)."""


@dataclass(frozen=True)
class CharacterCounts:
    """How the tokens of a vocabulary of UTF-8 byte sequences relate to characters, by token id."""

    started: Offsets
    """Number of characters whose first byte is in the token, int64."""
    starts_inside: Mask
    """Whether the token starts in the middle of a character."""


def complement(spans: Iterable[Span], length: int) -> list[Span]:
    """Return the spans of a text of `length` characters that lie outside of the given spans.

    Example:
        >>> complement([(5, 7), (0, 2)], 9)
        [(2, 5), (7, 9)]
    """
    return outside(spans, 0, length)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the characters that are in any of the spans, as spans that are ordered and disjoint.

    Example:
        >>> merged([(5, 7), (0, 2), (6, 9), (3, 3)])
        [(0, 2), (5, 9)]
    """
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        elif start < end:
            joined.append((start, end))
    return joined


def outside(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    """Return the parts of [start, end) that lie outside of the given spans, ordered.

    Example:
        >>> outside([(5, 7), (0, 2), (8, 12)], 1, 9)
        [(2, 5), (7, 8)]
    """
    gaps: list[Span] = []
    edge = start
    for first, after in sorted(spans):
        if edge < min(first, end):
            gaps.append((edge, min(first, end)))
        edge = max(edge, after)
    return [*gaps, (edge, end)] if edge < end else gaps


def tokens_in_spans_by_count(ids: Ragged, counts: CharacterCounts, spans: Sequence[Sequence[Span]]) -> Mask:
    """Find the tokens in spans by counting characters, without offsets.

    The tokens of each row must cover its whole text without gaps. Then a running sum of the characters that start in
    each token gives the position of every token. One sum over the concatenated rows is enough for the whole batch.

    Args:
        ids: tokens without those that represent no text.
        counts: counts of the tokenizer's vocabulary.
        spans: for each row its spans in characters, ordered and disjoint.

    Returns:
        bool, shape (total tokens,).
    """
    started = counts.started[ids.values]
    ends = np.cumsum(started)
    bases = np.concatenate(([0], ends))[ids.offsets[:-1]]
    edges = _shifted_edges(spans, bases)
    # `first` holds the first byte of the first character of a span. `after` holds the first byte of the character after
    # the span; it is in the span as well if it starts with the rest of the character before.
    first, after = np.searchsorted(ends, edges[:, 0], side="right"), np.searchsorted(ends, edges[:, 1], side="right")
    holder = np.minimum(after, len(ends) - 1)
    starts_in_span = (ends[holder] - started[holder] < edges[:, 1]) | counts.starts_inside[ids.values[holder]]
    changes = np.zeros(len(ends) + 1, np.int32)
    np.add.at(changes, first, 1)
    np.add.at(changes, after + ((after < len(ends)) & starts_in_span), -1)
    inside: Mask = np.cumsum(changes[:-1]) > 0
    return inside


def tokens_in_spans(encoded: TokensWithOffsets, text_lengths: Sequence[int], spans: Sequence[Sequence[Span]]) -> Mask:
    """Find the tokens in spans by the offsets of each token.

    Args:
        encoded: ids and offsets of the texts.
        text_lengths: characters of each text, shape (rows,).
        spans: for each row its spans in characters, ordered and disjoint.

    Returns:
        bool, shape (total tokens,).
    """
    # The texts are concatenated with one position between them, so that spans of different rows never touch.
    lengths = np.asarray(text_lengths, np.int64)
    bases = np.concatenate(([0], np.cumsum(lengths + 1)[:-1])) if len(lengths) else np.zeros(0, np.int64)
    edges = _shifted_edges(spans, bases)
    if not len(edges):
        return np.zeros(len(encoded.ids.values), np.bool_)
    token_bases = np.repeat(bases, encoded.ids.lengths)
    starts, ends = encoded.starts + token_bases, encoded.ends + token_bases
    candidate = np.searchsorted(edges[:, 1], starts, side="right")  # the first span that ends after the token starts
    inside: Mask = (edges[np.minimum(candidate, len(edges) - 1), 0] < ends) & (candidate < len(edges))
    return inside | _trained_suffixes(encoded, inside)


def _shifted_edges(spans: Sequence[Sequence[Span]], bases: Offsets) -> Offsets:
    """Return the non-empty spans of all rows, each shifted by the base of its row, shape (spans, 2)."""
    counts = [len(row) for row in spans]
    flat = np.fromiter((edge for row in spans for span in row for edge in span), np.int64, 2 * sum(counts))
    edges = flat.reshape(-1, 2) + np.repeat(bases, counts)[:, None]
    return edges[edges[:, 0] < edges[:, 1]]


def _trained_suffixes(encoded: TokensWithOffsets, inside: Mask) -> Mask:
    """Find the tokens that the tokenizer appends to a text, such as EOS, whose last token is in a span."""
    appended = np.zeros_like(inside)
    filled = np.flatnonzero(encoded.ids.lengths > 0)
    for row in filled[encoded.ends[encoded.ids.offsets[filled + 1] - 1] == 0]:
        first, last = int(encoded.ids.offsets[row]), int(encoded.ids.offsets[row + 1])
        stop = last
        while stop > first and encoded.ends[stop - 1] == 0:
            stop -= 1
        if stop > first:
            appended[stop:last] = inside[stop - 1]
    return appended
