"""From trained parts of texts to kinds and loss weights of tokens: those of one of the parts that each token is in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftkit.core.row_log import EngineDifferenceError
from sftkit.core.rows import LabeledTokens, Mask, Offsets, Ragged
from sftkit.core.token_kinds import TokenKind
from sftkit.tokenization.encoding.reference_encoder import SpanEncoder
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.labels import labels_from_mask
from sftkit.tokenization.masking.turn_parts import Part

_MOST_PARTS = 64
"""Parts of a text that are located one by one, in one call."""
_NO_PART = np.iinfo(np.int64).max


def encode_parts(
    encoder: SpanEncoder, texts: Sequence[str], parts: Sequence[Sequence[Part]], *, lowest_weight: bool = False
) -> LabeledTokens:
    """Encode rendered conversations, train the tokens in their parts, and tell the kind and the weight of each.

    A token over the edge of parts has the kind and the weight of the first of them, or of the one with the lowest
    weight. Those of untrained parts carry no loss. There are weights only if a part has one other than 0 and 1.

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
    every = [part for row in parts for part in row]
    weights = np.array([*(part.weight for part in every), 0, 1], np.float32)
    order = np.argsort(weights[:total], kind="stable") if lowest_weight else np.arange(total)
    order = np.append(order, total)
    rank = np.argsort(order)  # of each part, the lowest first
    numbers = order[np.minimum(rank[np.minimum(first_odd, total)], rank[np.minimum(first_even, total)])]
    for row in np.flatnonzero((odd_counts != (counts + 1) // 2) | (even_counts != counts // 2)).tolist():
        tokens = slice(ids.offsets[row], ids.offsets[row + 1])
        if len(parts[row]) > _MOST_PARTS and all(part.weight == 1 for part in parts[row]):
            numbers[tokens] = np.where((odd | even)[tokens], total + 1, total)
        else:
            first = int(counts[:row].sum())
            own = _lowest_parts(encoder, texts[row], parts[row], row, rank[first : first + counts[row]])
            numbers[tokens] = order[np.minimum(own, total)]
    kinds = np.array([*(part.kind for part in every), TokenKind.UNTRAINED, TokenKind.CONTENT], np.int32)
    return LabeledTokens(
        ids,
        labels_from_mask(ids, kinds[numbers] != TokenKind.UNTRAINED),
        Ragged(kinds[numbers], ids.offsets),
        Ragged(weights[numbers], ids.offsets) if any(part.weight not in (0, 1) for part in every) else None,
    )


def _lowest_parts(encoder: SpanEncoder, text: str, parts: Sequence[Part], row: int, ranks: Offsets) -> Offsets:
    """Return the lowest rank of the parts in each token of a text, shape (tokens,); a very high one for none."""
    found = []
    for start in range(0, len(parts), _MOST_PARTS):
        spans = [[span] for span in _spans(parts[start : start + _MOST_PARTS])]
        try:
            _, masks = encoder.encode_spans([text] * len(spans), spans, add_special_tokens=False)
        except EngineDifferenceError as error:
            raise EngineDifferenceError(error.engine, error.sample, row) from None
        by_part = masks.reshape(len(spans), -1)
        found.append(np.where(by_part, ranks[start : start + len(spans), None], _NO_PART).min(axis=0))
    lowest: Offsets = np.minimum.reduce(found)
    return lowest


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
