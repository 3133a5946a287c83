"""Rows one by one -> batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from sftkit.rows import Batch, Row
from sftkit.sources.model import BATCH_BYTES, BATCH_ROWS


def in_batches(rows: Iterable[tuple[int, Row, int]]) -> Iterator[Batch]:
    """Gather (row number, row, bytes of source) into batches of bounded rows and bytes."""
    pending: list[Row] = []
    numbers: list[int] = []
    size = 0
    for number, row, length in rows:
        pending.append(row)
        numbers.append(number)
        size += length
        if len(pending) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield Batch(pending, np.array(numbers, np.int64))
            pending, numbers, size = [], [], 0
    if pending:
        yield Batch(pending, np.array(numbers, np.int64))
