"""Reads the sequences of row groups: rows, the parts of packs, or texts as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sftkit.audit.checks.packs import Packing
from sftkit.core.rows import IGNORE_INDEX, Ids, Offsets, Ragged
from sftkit.inspection.columns.column_layout import ColumnLayout
from sftkit.inspection.columns.token_values import row_lengths, token_columns

_BATCH_TOKENS = 1 << 18  # a batch and what is derived from it fit the processor's cache


@dataclass(frozen=True)
class Sequences:
    """The sequences of some rows."""

    ids: Ragged
    """Token ids, or the UTF-8 bytes of texts."""
    labels: Ids | None
    """Label of each token, -100 where it carries no loss, shape (tokens,); None where labels are unknown."""
    rows: Offsets
    """The row of each sequence, shape (sequences,)."""
    numbers: Offsets | None
    """Index of each sequence in its pack, from 0, shape (sequences,); None where rows are not packed."""
    weights: Ids | None = None
    """The bits of the loss weight of each token; 0 for 1 where it carries a loss, and for 0 elsewhere; shape (tokens,).
    None where there is no column `loss_weights`."""
    misfit_rows: int = 0
    """Rows whose labels (or masks) or `seq_lengths` do not match their ids."""


def read_sequences(table: pa.Table, layout: ColumnLayout, packing: Packing) -> Sequences:
    """Convert some rows to sequences.

    The first token of a sequence never carries a loss, in packs and outside of them, because nothing predicts it.

    Raises:
        SourceError: a column does not hold lists of integers.
    """
    if not layout.tokens:
        ids = text_bytes(_texts(table, layout))
        return Sequences(ids, None, np.arange(len(ids)), None)
    tokens = token_columns(table, layout)
    packs = tokens.packs(packing)
    ids = tokens.ids if packs is None else Ragged(tokens.ids.values, packs.offsets)
    labels = None
    if tokens.trained is not None:
        own = tokens.labels if tokens.labels is not None else ids.values
        labels = np.where(tokens.trained, own, np.int32(IGNORE_INDEX))
        labels[ids.offsets[:-1][ids.lengths > 0]] = IGNORE_INDEX
    weights = None
    if labels is not None and tokens.weights is not None:
        trained = labels != IGNORE_INDEX
        weights = np.where(trained & (tokens.weights != 1), tokens.weights.view(np.int32), np.int32(0))
    if packs is None:
        misfits = int(np.count_nonzero(tokens.length_mismatch))
        return Sequences(ids, labels, np.arange(len(ids)), None, weights, misfits)
    misfits = int(np.count_nonzero(tokens.length_mismatch | packs.mismatched))
    return Sequences(ids, labels, packs.rows, packs.numbers, weights, misfits)


def sequence_batches(table: pa.Table, layout: ColumnLayout, packing: Packing) -> Iterator[Sequences]:
    """Yield the sequences of a row group in batches of about 2^18 tokens. `rows` count within the batch."""
    ends = np.cumsum(row_lengths(table, layout) if layout.tokens else text_bytes(_texts(table, layout)).lengths)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BATCH_TOKENS, side="right")))
        yield read_sequences(table.slice(start, stop - start), layout, packing)
        start = stop


def text_bytes(texts: pa.Array) -> Ragged:
    """Return the UTF-8 bytes of texts (large_string) as rows of integers; null is empty."""
    texts = texts.fill_null("")
    if not len(texts):
        return Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = texts.buffers()[2]
    values = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return Ragged(values[offsets[0] : offsets[-1]].astype(np.int32), offsets - offsets[0])


def _texts(table: pa.Table, layout: ColumnLayout) -> pa.Array:
    return table.column(layout.text).cast(pa.large_string()).combine_chunks()
