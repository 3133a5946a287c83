"""Reads again those sequences that have no equal on the other side: for their anchors, or the values of a column."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.core.error_text import first_line
from sftkit.core.rows import SEQ_LENGTHS, Mask, Offsets
from sftkit.errors import SourceError
from sftkit.inspection.compare.anchors import ANCHORS, sequence_anchors
from sftkit.inspection.compare.keys import Keys, sequence_keys
from sftkit.inspection.compare.scan import ScannedGroup, ScannedSplit
from sftkit.inspection.compare.sequences import sequence_batches, text_bytes
from sftkit.inspection.parquet_columns import iter_row_groups
from sftkit.shards.reading import open_parquet


def anchors_of(split: ScannedSplit, wanted: Offsets) -> Keys:
    """Compute the anchors of some sequences, uint64, shape (ANCHORS, wanted). They are kept in a temporary file.

    Args:
        split: the split.
        wanted: indices of sequences, ascending.

    Raises:
        SourceError: a file cannot be read.
    """
    if not len(wanted):
        return np.zeros((ANCHORS, 0), np.uint64)
    with tempfile.TemporaryFile(prefix="sftkit-compare-") as file:  # the map outlives it
        anchors: Keys = np.memmap(file, np.uint64, "w+", shape=(ANCHORS, len(wanted)))
    for group, start, stop in _groups_of(split, wanted):
        layout = replace(group.layout, supervision=(), kinds=False)
        first, at = group.first, start
        for batch in sequence_batches(next(iter_row_groups(layout, group.number)), layout, split.packing):
            chosen = np.zeros(len(batch.ids), np.bool_)
            until = at + int(np.searchsorted(wanted[at:stop], first + len(batch.ids)))
            chosen[wanted[at:until] - first] = True
            anchors[:, at:until] = sequence_anchors(batch.ids.filter(chosen))
            first, at = first + len(batch.ids), until
    return anchors


def column_keys_of(split: ScannedSplit, wanted: Offsets, column: str) -> tuple[Keys, Mask]:
    """Hash the value that some sequences have in a column; a pack has a list of values, one for each sequence.

    Args:
        split: the split.
        wanted: indices of sequences, ascending.
        column: the column.

    Returns:
        The hashes, shape (wanted,), and where there is a value.

    Raises:
        SourceError: a file has no such column, or not a text or number for each sequence.
    """
    keys, filled = np.zeros(len(wanted), np.uint64), np.zeros(len(wanted), np.bool_)
    for group, start, stop in _groups_of(split, wanted):
        values = _column_values(group, column)
        chosen = values.take(pa.array(wanted[start:stop] - group.first))
        keys[start:stop], _ = sequence_keys(text_bytes(chosen), None)
        filled[start:stop] = np.asarray(pc.is_valid(chosen))
    return keys, filled


def _groups_of(split: ScannedSplit, wanted: Offsets) -> Iterator[tuple[ScannedGroup, int, int]]:
    """Yield the row groups that hold wanted sequences, and which of them: wanted[start:stop]."""
    for group in split.groups:
        start, stop = np.searchsorted(wanted, [group.first, group.first + group.sequences]).tolist()
        if stop > start:
            yield group, start, stop


def _column_values(group: ScannedGroup, column: str) -> pa.Array:
    """Return the values of a column for the sequences of a row group, as large_string."""
    layout = group.layout
    if column not in layout.names:
        raise SourceError(f"{layout.path}: has no column {column!r}; columns there: {', '.join(layout.names)}")
    with open_parquet(layout.path) as file:
        names = [column, SEQ_LENGTHS] if layout.packed else [column]
        table = file.read_row_group(group.number, columns=names, use_threads=False)
    values = table.column(column)
    try:
        if layout.packed:
            values = pc.list_flatten(values)
        values = values.cast(pa.large_string())
    except (pa.ArrowException, NotImplementedError) as error:
        each = "a text or number for each sequence" if layout.packed else "texts or numbers"
        raise SourceError(f"{layout.path}: column {column!r} must hold {each}: {first_line(error)}") from None
    if len(values) != group.sequences:
        raise SourceError(
            f"{layout.path}: column {column!r} has {len(values):,} values for {group.sequences:,} sequences "
            f"(row group {group.number}); it must have one for each"
        )
    return values.combine_chunks()
