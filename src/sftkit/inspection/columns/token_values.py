"""Reads the tokens of rows, which of them carry a loss, and what else is known of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.audit.checks.packs import PackBoundaries, Packing, pack_boundaries
from sftkit.core.rows import (
    IGNORE_INDEX,
    INPUT_IDS,
    LABELS,
    SOURCE,
    Ids,
    Mask,
    Offsets,
    Ragged,
    Weights,
)
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.inspection.columns.column_layout import ColumnLayout
from sftkit.inspection.columns.flat_columns import align, flat_numbers, flatten, flatten_as
from sftkit.inspection.columns.pack_columns import sequence_lengths
from sftkit.ordering.packing import cuts_inside_packs, keeps_rows_whole
from sftkit.shards.manifest import Manifest


@dataclass(frozen=True)
class TokenColumns:
    """The tokens of some rows."""

    ids: Ragged
    labels: Ids | None
    """int32, shape (tokens,), -100 where there is no loss; None when there is no `labels` column."""
    trained: Mask | None
    """Which tokens carry a loss, bool, shape (tokens,); None when there are neither labels nor masks."""
    length_mismatch: Mask
    """Rows in which a column differs from `input_ids` in length, bool, shape (rows,); missing values carry no loss."""
    seq_lengths: Ragged | None
    """Tokens of the sequences in each pack; None where rows are not packed."""
    kinds: Ids | None = None
    """The kind of each token (`TokenKind`), int32, shape (tokens,); None when there is no column `token_kinds`."""

    weights: Weights | None = None
    """The loss weight of each token, float32, shape (tokens,); None when there is no column `loss_weights`."""
    sources: Ragged | None = None
    """The number of the data set of each row, or of each sequence of a pack; None when there is no column `source`."""

    @property
    def wrong_labels(self) -> Mask:
        """Trained tokens whose label differs from their id, bool, shape (tokens,)."""
        if self.labels is None or self.trained is None:
            return np.zeros(len(self.ids.values), np.bool_)
        different: Mask = self.labels != self.ids.values
        return np.logical_and(different, self.trained, out=different)

    def packs(self, packing: Packing) -> PackBoundaries | None:
        """Return the sequences in the rows, None where rows are not packed."""
        return pack_boundaries(self.ids, self.seq_lengths, packing) if self.seq_lengths is not None else None


def token_columns(table: pa.Table, layout: ColumnLayout) -> TokenColumns:
    """Convert the token columns of some rows to flat arrays.

    Raises:
        SourceError: a column does not hold lists of integers.
    """
    ids = flatten(table.column(INPUT_IDS), INPUT_IDS, layout.path)
    columns = [flatten(table.column(name), name, layout.path) for name in layout.supervision]
    length_mismatch = np.zeros(len(ids), np.bool_)
    for column in columns:
        length_mismatch |= column.lengths != ids.lengths
    seq_lengths = _sequence_lengths(table, layout, ids)
    labels, trained = None, None
    if layout.supervision == (LABELS,):
        labels = align(columns[0], ids, IGNORE_INDEX)
        trained = labels != IGNORE_INDEX
    elif columns:
        trained = np.logical_and.reduce([align(column, ids, 0) != 0 for column in columns])
        if layout.has_shifted_mask and seq_lengths is not None:
            trained = _shifted_back(trained, pack_boundaries(ids, seq_lengths, Packing()))
    kinds = align(flatten(table.column(TOKEN_KINDS), TOKEN_KINDS, layout.path), ids, 0) if layout.kinds else None
    weights: Weights | None = None
    if layout.weights:
        column = flatten_as(table.column(LOSS_WEIGHTS), LOSS_WEIGHTS, layout.path, pa.float32())
        length_mismatch |= column.lengths != ids.lengths
        weights = align(column, ids, 0)
    sources = _sources(table.column(SOURCE), layout) if layout.sources else None
    return TokenColumns(ids, labels, trained, length_mismatch, seq_lengths, kinds, weights, sources)


def row_lengths(table: pa.Table, layout: ColumnLayout) -> Offsets:
    """Return the tokens of each row, shape (rows,). Raises `SourceError` as `token_columns`."""
    return flatten(table.column(INPUT_IDS), INPUT_IDS, layout.path).lengths


def _sequence_lengths(table: pa.Table, layout: ColumnLayout, ids: Ragged) -> Ragged | None:
    name = layout.boundaries
    return sequence_lengths(flatten(table.column(name), name, layout.path), name, ids) if name is not None else None


def _shifted_back(mask: Mask, packs: PackBoundaries) -> Mask:
    """Return which tokens are trained, given which tokens predict one; nothing predicts the first of a sequence."""
    trained = np.zeros(len(mask), np.bool_)
    trained[1:] = mask[:-1]
    trained[packs.offsets[:-1][np.diff(packs.offsets) > 0]] = False
    return trained


def _sources(column: pa.ChunkedArray, layout: ColumnLayout) -> Ragged:
    """Read the column `source`; -1 for null."""
    if layout.packed:
        return flatten(column, SOURCE, layout.path)
    numbers = flat_numbers(pc.fill_null(column, -1).combine_chunks(), SOURCE, layout.path)
    return Ragged.from_lengths(numbers, np.ones(len(numbers), np.int64))


def split_packing(manifest: Manifest | None, split: str) -> Packing:
    """Return how a split was packed; for shards without a manifest this is unknown."""
    if manifest is None or split not in manifest.splits:
        return Packing()
    packing = manifest.config.get("packing")
    return Packing(manifest.splits[split].pack_length, not keeps_rows_whole(packing), cuts_inside_packs(packing))
