"""From trained parts of texts to the kinds of their tokens: a token has the kind of its first character."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftkit.core.row_log import EngineDifferenceError
from sftkit.core.rows import Ids, LabeledTokens, Mask, Offsets, Ragged
from sftkit.core.token_kinds import TokenKind
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.labels import labels_from_mask
from sftkit.tokenization.masking.turn_parts import Part

_MOST_PARTS = 64
"""Parts of a text that are located one by one."""


def encode_parts(encoder: Encoder, texts: Sequence[str], parts: Sequence[Sequence[Part]]) -> LabeledTokens:
    """Encode rendered conversations, train the tokens in their parts, and tell the kind of each.

    The texts are encoded twice: with the first, third, ... of their parts as spans, and with the others. Two spans of
    one call have a part between them, so that each part has tokens of its own and the first part of a token is known.
    The exception is a part so short that its neighbours share its tokens; the parts of such a text are located one by
    one.
    """
    counts = np.fromiter(map(len, parts), np.int64, len(parts))
    ids, odd = encoder.encode_spans(texts, [_spans(row[::2]) for row in parts], add_special_tokens=False)
    _, even = encoder.encode_spans(texts, [_spans(row[1::2]) for row in parts], add_special_tokens=False)
    (odd_runs, odd_counts), (even_runs, even_counts) = _runs(ids, odd), _runs(ids, even)
    # Numbers of parts over all texts; the last stands for no part.
    bases, total = np.repeat(np.cumsum(counts) - counts, ids.lengths), int(counts.sum())
    first_odd = np.where(odd, bases + 2 * odd_runs, total)
    first_even = np.where(even, bases + 2 * even_runs + 1, total)
    every_kind = np.array([*(part.kind for row in parts for part in row), TokenKind.UNTRAINED], np.int32)
    kinds = every_kind[np.minimum(np.minimum(first_odd, first_even), total)]
    for row in np.flatnonzero((odd_counts != (counts + 1) // 2) | (even_counts != counts // 2)).tolist():
        tokens = slice(ids.offsets[row], ids.offsets[row + 1])
        kinds[tokens] = _kinds_one_by_one(encoder, texts[row], parts[row], row, (odd | even)[tokens])
    return LabeledTokens(ids, labels_from_mask(ids, odd | even), Ragged(kinds, ids.offsets))


def _kinds_one_by_one(encoder: Encoder, text: str, parts: Sequence[Part], row: int, trained: Mask) -> Ids:
    """Return the kinds of the tokens of one text, by the tokens of each part; content if there are too many parts."""
    if len(parts) > _MOST_PARTS:
        return np.where(trained, np.int32(TokenKind.CONTENT), np.int32(TokenKind.UNTRAINED))
    try:
        spans = [[span] for span in _spans(parts)]
        _, masks = encoder.encode_spans([text] * len(parts), spans, add_special_tokens=False)
    except EngineDifferenceError as error:
        raise EngineDifferenceError(error.engine, error.sample, row) from None
    by_part = masks.reshape(len(parts), -1)
    first = np.array([part.kind for part in parts], np.int32)[by_part.argmax(axis=0)]
    kinds: Ids = np.where(by_part.any(axis=0), first, np.int32(TokenKind.UNTRAINED))
    return kinds


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
    return [(start, end) for start, end, _ in parts]
