"""Character spans -> labels. A token carries a loss when any of its characters lies in a span that does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftkit.rows import IGNORE_INDEX, Ids, Mask, Offsets, Ragged
from sftkit.tokenization.encoding import Encoded

Span = tuple[int, int]
"""[start, end) in characters of one text."""


def labels_from_spans(encoded: Encoded, text_lengths: Sequence[int], spans: Sequence[Sequence[Span]]) -> Ragged:
    """Labels of a batch: ids inside the spans, -100 elsewhere.

    Args:
        encoded: ids and offsets of the texts.
        text_lengths: characters of each text, shape (rows,).
        spans: for each row its trained spans, ordered and disjoint.
    """
    return with_loss(encoded.ids, _in_spans(encoded, np.asarray(text_lengths, np.int64), spans))


def labels_after_prefix(ids: Ragged, prefixes: Offsets) -> Ragged:
    """Labels of a batch: -100 for the first `prefixes[i]` tokens of row i, the ids from there on."""
    position = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], ids.lengths)
    return with_loss(ids, position >= np.repeat(prefixes, ids.lengths))


def labels_everywhere(ids: Ragged) -> Ragged:
    """Labels with a loss on every token."""
    return Ragged(ids.values, ids.offsets)


def with_loss(ids: Ragged, trained: Mask) -> Ragged:
    """Ids where `trained` (bool, shape (total tokens,)) is true, -100 elsewhere."""
    values: Ids = np.where(trained, ids.values, np.int32(IGNORE_INDEX)).astype(np.int32, copy=False)
    return Ragged(values, ids.offsets)


def trained_counts(labels: Ragged) -> Offsets:
    """How many tokens of each row carry a loss, shape (rows,)."""
    return labels.sums(labels.values != IGNORE_INDEX)


def _in_spans(encoded: Encoded, text_lengths: Offsets, spans: Sequence[Sequence[Span]]) -> Mask:
    """Which tokens overlap a span, found for the whole batch by one binary search."""
    # All texts laid end to end, one position apart, so that spans of different rows never touch.
    bases = np.concatenate(([0], np.cumsum(text_lengths + 1)[:-1])) if len(text_lengths) else np.zeros(0, np.int64)
    counts = [len(row) for row in spans]
    edges = np.array([edge for row in spans for edge in row], np.int64).reshape(-1, 2)
    edges = edges + np.repeat(bases, counts)[:, None]
    edges = edges[edges[:, 0] < edges[:, 1]]  # an empty span (a turn without a word) lies in no token
    if not len(edges):
        return np.zeros(len(encoded.ids.values), np.bool_)
    token_bases = np.repeat(bases, encoded.ids.lengths)
    starts, ends = encoded.starts + token_bases, encoded.ends + token_bases
    candidate = np.searchsorted(edges[:, 1], starts, side="right")  # the first span that ends after the token starts
    inside: Mask = (edges[np.minimum(candidate, len(edges) - 1), 0] < ends) & (candidate < len(edges))
    return inside | _closing_tokens(encoded, inside)


def _closing_tokens(encoded: Encoded, inside: Mask) -> Mask:
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
