"""Texts of rows without tokens, and the names that messages give to rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.core.rows import Offsets
from sftkit.inspection.columns.column_layout import ColumnLayout


def text_lengths(table: pa.Table, layout: ColumnLayout) -> Offsets:
    """Return the characters of each row of the text column, shape (rows,); 0 for null."""
    lengths = pc.fill_null(pc.utf8_length(_plain_text(table, layout)), 0)
    return np.asarray(lengths.to_numpy(), np.int64)


def text_values(table: pa.Table, layout: ColumnLayout) -> list[str]:
    """Return the text column of some rows; "" for null."""
    return [text or "" for text in _plain_text(table, layout).to_pylist()]


def _plain_text(table: pa.Table, layout: ColumnLayout) -> pa.ChunkedArray:
    return table.column(layout.text).cast(pa.large_string())


def row_reference(shard: str, row: int, sequence: int | None = None) -> str:
    """Format the position of a row, or of a sequence in a pack. Arguments count from 0, the printed sequence from 1.

    Example:
        >>> row_reference("a.parquet", 7), row_reference("a.parquet", 7, 0)
        ('a.parquet:7', 'a.parquet:7 (sequence 1)')
    """
    return f"{shard}:{row}" if sequence is None else f"{shard}:{row} (sequence {sequence + 1})"
