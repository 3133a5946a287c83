"""Tokens and labels of pairs: an input, and the text of the input with the output after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sftkit.core.row_log import EngineDifferenceError
from sftkit.core.rows import LabeledTokens, Mask, Ragged, ragged_where
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.masking.labels import labels_after_prefix, labels_from_mask


def encode_pairs(
    encoder: Encoder,
    inputs: Sequence[str],
    texts: Sequence[str],
    *,
    trains_boundary: bool,
    add_special_tokens: bool = True,
) -> tuple[LabeledTokens, Mask]:
    """Encode texts that begin with their inputs, and train the tokens after those of the input.

    In most rows, the tokens of the input alone are the first tokens of the text. In others, a token covers the end of
    the input and the beginning of the output, such as ` positive` for `Label: ` and `positive`.

    Args:
        encoder: encodes texts.
        inputs: the inputs.
        texts: for each input, the text that begins with it.
        add_special_tokens: add the tokens of the post-processor, such as BOS.
        trains_boundary: train a token over the boundary; else no loss is on as many tokens as the input alone has.

    Returns:
        The tokens, and which rows have a token over the boundary, shape (rows,).
    """
    ids, prefixes = (encoder.encode(each, add_special_tokens=add_special_tokens) for each in (texts, inputs))
    encoded = LabeledTokens(ids, labels_after_prefix(ids, prefixes.lengths))
    merged = np.zeros(len(ids), np.bool_)
    others = ~_start_with(ids, prefixes)
    if not others.any():
        return encoded, merged
    rows: list[int] = np.flatnonzero(others).tolist()
    some = [texts[row] for row in rows]
    edges = [(len(inputs[row]), len(texts[row])) for row in rows]
    try:
        located, in_output = encoder.encode_spans(
            some, [[span] for span in edges], add_special_tokens=add_special_tokens
        )
        _, in_input = encoder.encode_spans(
            some, [[(0, start)] for start, _ in edges], add_special_tokens=add_special_tokens
        )
    except EngineDifferenceError as error:
        index = None if error.index is None else rows[error.index]
        raise EngineDifferenceError(error.engine, error.sample, index) from None
    merged[rows] = located.count_per_row(in_output & in_input) > 0
    if not trains_boundary:
        return encoded, merged
    labels = ragged_where(others, labels_from_mask(located, in_output), encoded.labels.filter(~others))
    return LabeledTokens(ids, labels), merged


def truncate_pairs(
    encoder: Encoder,
    encoded: LabeledTokens,
    inputs: Sequence[str],
    texts: Sequence[str],
    limit: int,
    add_special_tokens: bool,
) -> LabeledTokens:
    """Truncate pairs to `limit` tokens as the tokenizer does, which may keep its last token or cut on the left.

    Where it only cuts tokens off the end, the labels are cut as well. Elsewhere, no loss is on as many tokens as the
    truncated input has.
    """
    is_long = encoded.input_ids.lengths > limit
    rows: list[int] = np.flatnonzero(is_long).tolist()
    short = encoder.encode([texts[row] for row in rows], add_special_tokens=add_special_tokens, limit=limit)
    prefixes = encoder.encode([inputs[row] for row in rows], add_special_tokens=add_special_tokens, limit=limit)
    limits = np.full(len(rows), limit, np.int64)
    is_cut = _start_with(short, encoded.input_ids.filter(is_long).truncate(limits))
    cut, others = encoded.labels.filter(is_long).truncate(limits), labels_after_prefix(short, prefixes.lengths)
    labels = ragged_where(is_cut, cut.filter(is_cut), others.filter(~is_cut))
    return LabeledTokens(
        ragged_where(is_long, short, encoded.input_ids.filter(~is_long)),
        ragged_where(is_long, labels, encoded.labels.filter(~is_long)),
    )


def _start_with(ids: Ragged, prefixes: Ragged) -> Mask:
    """Return which rows of ids begin with their prefix, shape (rows,)."""
    fits = prefixes.lengths <= ids.lengths
    position = np.arange(len(prefixes.values)) + np.repeat(ids.offsets[:-1] - prefixes.offsets[:-1], prefixes.lengths)
    differs = ids.values[np.minimum(position, len(ids.values) - 1)] != prefixes.values
    starts: Mask = fits & (prefixes.count_per_row(differs) == 0)
    return starts
