"""Writes rows to a staged unit, except those whose retained columns no Parquet file can hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch
from sftkit.errors import DataError
from sftkit.shards.retained_columns import RetainedColumnError, storage_problem
from sftkit.shards.staging.unit_writer import UnitWriter


def write_storable(
    writer: UnitWriter, batch: Batch, text_column: str | None, place_of: Callable[[int], str], log: RowLog
) -> Batch:
    """Write rows, quarantine those whose retained columns cannot be stored, and return the ones that were written.

    Rows are looked at one by one only if they cannot be written together.

    Raises:
        DataError: rows cannot be stored together, although each could be; the message names the first that does not fit
            by what `place_of` makes of its number.
    """
    try:
        writer.write(batch, text_column, log)
    except DataError as error:
        storable = _quarantine_unstorable(batch, text_column, log)
        if len(storable) < len(batch):
            return write_storable(writer, storable, text_column, place_of, log) if len(storable) else storable
        index = error.row_index if isinstance(error, RetainedColumnError) else 0
        raise DataError(f"{place_of(int(batch.numbers[index]))}: {error}") from None
    return batch


def _quarantine_unstorable(batch: Batch, text_column: str | None, log: RowLog) -> Batch:
    kept = np.ones(len(batch), np.bool_)
    for index, row in enumerate(batch.rows):
        problem = storage_problem(row, sorted(row.keys() - {text_column}))
        if problem is not None:
            log.quarantine(int(batch.numbers[index]), problem, row)
            kept[index] = False
    return batch.filter(kept)
