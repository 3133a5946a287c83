"""Tokens and labels of texts that come in segments, each with its own label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sftkit.core.row_log import EngineDifferenceError
from sftkit.core.rows import LabeledTokens, Ragged
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.masking.labels import labels_from_mask


class Segment(NamedTuple):
    """A piece of a text."""

    text: str
    is_trained: bool
    """Whether its tokens carry a loss."""


def encode_segments(encoder: Encoder, rows: Sequence[Sequence[Segment]]) -> LabeledTokens:
    """Encode each segment by itself, without special tokens around it, and join the tokens of a row, as axolotl does.

    So no token covers the edge of a segment, and the ids may differ from those of the whole text.
    """
    segments = [segment for row in rows for segment in row]
    spans = [[(0, len(text))] if is_trained else [] for text, is_trained in segments]
    counts = [len(row) for row in rows]
    try:
        ids, trained = encoder.encode_spans([text for text, _ in segments], spans, add_special_tokens=False)
    except EngineDifferenceError as error:
        index = None if error.index is None else int(np.searchsorted(np.cumsum(counts), error.index, side="right"))
        raise EngineDifferenceError(error.engine, error.sample, index) from None
    edges = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    joined = Ragged(ids.values, ids.offsets[edges])
    return LabeledTokens(joined, labels_from_mask(joined, trained))
