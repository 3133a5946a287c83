"""From trained parts of texts to kinds and loss weights of tokens: those of the first trained character of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftkit.core.row_log import EngineDifferenceError
from sftkit.core.rows import LabeledTokens, Mask, Offsets, Ragged
from sftkit.core.token_kinds import TokenKind
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.labels import labels_from_mask
from sftkit.tokenization.masking.turn_parts import Part

_MOST_PARTS = 64
"""Parts of a text that are located one by one, in one call."""


def encode_parts(encoder: Encoder, texts: Sequence[str], parts: Sequence[Sequence[Part]]) -> LabeledTokens:
    """Encode rendered conversations, train the tokens in their parts, and tell the kind and the weight of each.

    There are weights only if a part has one other than 1.

    The texts are encoded twice: with the first, third, ... of their parts as spans, and with the others. Two spans of
    one call have a part between them, so that each part has tokens of its own and the first part of a token is known.
    The exception is a part so short that its neighbours share its tokens; the parts of such a text are located one by
    one. If there are very many of them, they are content, unless they differ in weight.
    """
    counts = np.fromiter(map(len, parts), np.int64, len(parts))
    ids, odd = encoder.encode_spans(texts, [_spans(row[::2]) for row in parts], add_special_tokens=False)
    _, even = encoder.encode_spans(texts, [_spans(row[1::2]) for row in parts], add_special_tokens=False)
    (odd_runs, odd_counts), (even_runs, even_counts) = _runs(ids, odd), _runs(ids, even)
    # Numbers of parts over all texts; `total` stands for no part, and `total + 1` for one that is not known.
    bases, total = np.repeat(np.cumsum(counts) - counts, ids.lengths), int(counts.sum())
    first_odd = np.where(odd, bases + 2 * odd_runs, total)
    first_even = np.where(even, bases + 2 * even_runs + 1, total)
    numbers = np.minimum(np.minimum(first_odd, first_even), total)
    for row in np.flatnonzero((odd_counts != (counts + 1) // 2) | (even_counts != counts // 2)).tolist():
        tokens = slice(ids.offsets[row], ids.offsets[row + 1])
        if len(parts[row]) > _MOST_PARTS and all(part.weight == 1 for part in parts[row]):
            numbers[tokens] = np.where((odd | even)[tokens], total + 1, total)
        else:
            own = _first_parts(encoder, texts[row], parts[row], row)
            numbers[tokens] = np.where(own < counts[row], own + int(counts[:row].sum()), total)
    every = [part for row in parts for part in row]
    kinds = np.array([*(part.kind for part in every), TokenKind.UNTRAINED, TokenKind.CONTENT], np.int32)
    weights = np.array([*(part.weight for part in every), 0, 1], np.float32)
    return LabeledTokens(
        ids,
        labels_from_mask(ids, odd | even),
        Ragged(kinds[numbers], ids.offsets),
        Ragged(weights[numbers], ids.offsets) if any(part.weight != 1 for part in every) else None,
    )


def _first_parts(encoder: Encoder, text: str, parts: Sequence[Part], row: int) -> Offsets:
    """Return the number of the first part in each token of a text, shape (tokens,); `len(parts)` for none."""
    found = []
    for start in range(0, len(parts), _MOST_PARTS):
        spans = [[span] for span in _spans(parts[start : start + _MOST_PARTS])]
        try:
            _, masks = encoder.encode_spans([text] * len(spans), spans, add_special_tokens=False)
        except EngineDifferenceError as error:
            raise EngineDifferenceError(error.engine, error.sample, row) from None
        by_part = masks.reshape(len(spans), -1)
        found.append(np.where(by_part.any(axis=0), start + by_part.argmax(axis=0), len(parts)))
    first: Offsets = np.minimum.reduce(found)
    return first


def _runs(ids: Ragged, mask: Mask) -> tuple[Offsets, Offsets]:
    """Divide the tokens of a mask into runs of adjacent ones.

    Returns:
        For each token of the mask the number of its run within its row, from 0, and the runs of each row.
    """
    before = np.append(False, mask)[:-1]
    before[ids.offsets[:-1][ids.lengths > 0]] = False
    starts = mask & ~before
    running = np.append(0, np.cumsum(starts))
    numbers: Offsets = running[1:] - 1 - np.repeat(running[ids.offsets[:-1]], ids.lengths)
    return numbers, ids.count_per_row(starts)


def _spans(parts: Sequence[Part]) -> list[Span]:
    return [(part.start, part.end) for part in parts]
