"""Parts of conversations with the tokens of inference, where encoding a text at once gives others for its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sftkit.core.rows import IGNORE_INDEX, LabeledTokens, Ragged
from sftkit.core.weights.weighted_tokens import default_weights
from sftkit.tokenization.encoding.boundary.inference_encoder import InferenceEncoder, is_inexact
from sftkit.tokenization.encoding.boundary.prompt_check import rows_of_errors
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import merged
from sftkit.tokenization.masking.parts.part_tokens import encode_parts
from sftkit.tokenization.masking.turn_parts import Part


def encode_parts_apart(
    encoder: Encoder,
    inference: InferenceEncoder,
    texts: Sequence[str],
    parts: Sequence[Sequence[Part]],
    ends: Sequence[Sequence[int]],
    *,
    lowest_weight: bool,
) -> LabeledTokens:
    """Encode texts as `encode_parts` does, but in pieces where the tokens of prompts are not those of inference.

    Args:
        encoder: encodes whole texts.
        inference: finds and encodes those that are encoded in pieces.
        texts: the texts.
        parts: for each text its trained parts.
        ends: for each text where the prompts of its trained answers end, ascending.
        lowest_weight: as for `encode_parts`.
    """
    encoded = encode_parts(encoder, texts, parts, lowest_weight=lowest_weight)
    trained = encoded.labels.values != IGNORE_INDEX
    # With the lowest weight, the first token of a span need not be trained, so nothing is known from trained tokens.
    spans = [[] if lowest_weight else merged((part.start, part.end) for part in row) for row in parts]
    pieces = inference.find_pieces(texts, spans, ends, encoded.input_ids, trained)
    inexact = np.zeros(len(texts), np.bool_)
    for row, each in pieces.items():
        inexact[row] = is_inexact(each, ends[row])
        if each.tokens is None:
            continue
        with rows_of_errors([row] * len(parts[row])):
            one = inference.piece_encoder(each.cuts)
            own = encode_parts(one, [texts[row]], [parts[row]], lowest_weight=lowest_weight)
        encoded = _with_row(encoded, row, own)
    return replace(encoded, inexact=inexact)


def _with_row(encoded: LabeledTokens, row: int, own: LabeledTokens) -> LabeledTokens:
    """Replace one row."""
    weights = encoded.weights
    if weights is not None:
        weights = _replaced(weights, row, own.weights or default_weights(own.labels))
    return LabeledTokens(
        _replaced(encoded.input_ids, row, own.input_ids),
        _replaced(encoded.labels, row, own.labels),
        None if encoded.kinds is None or own.kinds is None else _replaced(encoded.kinds, row, own.kinds),
        weights,
    )


def _replaced(column: Ragged, row: int, own: Ragged) -> Ragged:
    lengths = column.lengths
    lengths[row] = len(own.values)
    before, after = column.values[: column.offsets[row]], column.values[column.offsets[row + 1] :]
    return Ragged.from_lengths(np.concatenate([before, own.values, after]), lengths)
