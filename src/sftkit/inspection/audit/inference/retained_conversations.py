"""Reads the tokens and the retained conversation of each row of a shard, and of each sequence in its packs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.audit.checks.packs import Packing
from sftkit.core.error_text import first_line
from sftkit.core.null_fields import without_null_fields
from sftkit.core.rows import Ids, Mask, Row
from sftkit.errors import SourceError
from sftkit.inspection.columns.column_layout import ColumnLayout
from sftkit.inspection.columns.token_values import token_columns
from sftkit.shards.pack_padding import remove_padding
from sftkit.shards.readers.open_file import open_shard_file

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class RetainedRow:
    """A row, or a sequence of a pack."""

    row: int
    """Index of the row in the file."""
    sequence: int | None
    """Index of the sequence in its pack; None where rows are not packed."""
    ids: Ids
    """The tokens, int32, shape (tokens,)."""
    trained: Mask
    """Which of them carry a loss, bool, shape (tokens,)."""
    columns: Row
    """The retained columns, without null fields."""
    may_lack_start: bool
    """Whether the edge of a pack may have cut off its start."""


def read_retained(layout: ColumnLayout, columns: Sequence[str], packing: Packing) -> Iterator[list[RetainedRow]]:
    """Yield the rows of a file, some at a time.

    Rows whose columns differ in length, and packs whose sequences are unknown, are left out.

    Args:
        layout: the columns of the file, which has labels or masks.
        columns: the retained columns to read.
        packing: how rows were packed.

    Raises:
        SourceError: the file cannot be read.
    """
    names = [*layout.columns, *columns]
    first = 0
    try:
        with open_shard_file(layout.path) as file:
            for group in file.iter_groups(names):
                for batch in remove_padding(group, layout.path).to_batches(_ROWS_AT_ONCE):
                    yield _rows_of(pa.Table.from_batches([batch]), layout, columns, packing, first)
                    first += batch.num_rows
    except (OSError, ValueError, pa.ArrowException) as error:
        named = ", ".join(map(repr, columns))
        raise SourceError(f"{layout.path}: the columns {named} cannot be read: {first_line(error)}") from None


def _rows_of(
    table: pa.Table, layout: ColumnLayout, columns: Sequence[str], packing: Packing, first: int
) -> list[RetainedRow]:
    tokens = token_columns(table, layout)
    assert tokens.trained is not None
    packs = tokens.packs(packing)
    values = {name: [without_null_fields(value) for value in table.column(name).to_pylist()] for name in columns}
    offsets = tokens.ids.offsets if packs is None else packs.offsets
    rows = np.arange(len(tokens.ids)) if packs is None else packs.rows
    found = []
    for index, row in enumerate(rows.tolist()):
        if tokens.length_mismatch[row] or (packs is not None and packs.mismatched[row]):
            continue
        sequence = None if packs is None else int(packs.numbers[index])
        start, stop = offsets[index], offsets[index + 1]
        found.append(
            RetainedRow(
                first + row,
                sequence,
                tokens.ids.values[start:stop],
                tokens.trained[start:stop],
                {name: _value_of(values[name][row], sequence) for name in columns},
                packs is not None and bool(packs.cut_start[index]),
            )
        )
    return found


def _value_of(value: Any, sequence: int | None) -> Any:
    """Return the value of a row; in packs, that of one sequence."""
    if sequence is None:
        return value
    return value[sequence] if isinstance(value, list) and sequence < len(value) else None
