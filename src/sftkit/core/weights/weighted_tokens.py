"""Columns of loss weights: made from labels, multiplied, and brought to agree with labels."""

from __future__ import annotations

import numpy as np

from sftkit.core.rows import IGNORE_INDEX, LABELS, Batch, Mask, Ragged, Weights
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS


def default_weights(labels: Ragged) -> Ragged:
    """Return the weights of tokens that nothing weighs: 1 where there is a loss, else 0.

    Example:
        >>> default_weights(Ragged.from_lists([[-100, 7]])).values.tolist()
        [0.0, 1.0]
    """
    return Ragged((labels.values != IGNORE_INDEX).astype(np.float32), labels.offsets)


def weighted_rows(weights: Ragged, labels: Ragged) -> Mask:
    """Return which rows have a weight other than the default, bool, shape (rows,)."""
    rows: Mask = weights.count_per_row(weights.values != default_weights(labels).values) > 0
    return rows


def scaled(weights: Ragged, factors: Weights) -> Ragged:
    """Multiply the weights of each row i by `factors[i]`, shape (rows,)."""
    return Ragged(weights.values * np.repeat(factors, weights.lengths), weights.offsets)


def with_agreeing_labels(batch: Batch) -> Batch:
    """Make labels and weights of a batch agree, if it has weights: what has no label or no weight has neither.

    Example:
        >>> labels, weights = Ragged.from_lists([[-100, 7, 8]]), Ragged.from_lists([[1, 0, 0.5]], np.float32)
        >>> batch = with_agreeing_labels(Batch([{}], np.array([1]), {"labels": labels, "loss_weights": weights}))
        >>> batch.tokens["labels"].values.tolist(), batch.tokens["loss_weights"].values.tolist()
        ([-100, -100, 8], [0.0, 0.0, 0.5])
    """
    if LOSS_WEIGHTS not in batch.tokens:
        return batch
    labels, weights = batch.tokens[LABELS], batch.tokens[LOSS_WEIGHTS]
    carries = (labels.values != IGNORE_INDEX) & (weights.values > 0)
    return batch.with_tokens(
        **{
            LABELS: Ragged(np.where(carries, labels.values, np.int32(IGNORE_INDEX)), labels.offsets),
            LOSS_WEIGHTS: Ragged(np.where(carries, weights.values, np.float32(0)), weights.offsets),
        }
    )


def with_weights(batch: Batch) -> Batch:
    """Return a batch with a column of weights: its own, or the default."""
    if LOSS_WEIGHTS in batch.tokens:
        return batch
    return batch.with_tokens(**{LOSS_WEIGHTS: default_weights(batch.tokens[LABELS])})
