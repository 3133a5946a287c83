"""Reading a range of a source up to a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch


def rows_up_to(last_number: int, read: Callable[[RowLog], Iterator[Batch]], log: RowLog) -> Iterator[Batch]:
    """Yield the rows up to a number, and quarantine unreadable rows up to it; the rest is not read.

    Args:
        last_number: number of the last row.
        read: reads the rows in order; unreadable rows go to the log that it gets.
        log: gets the unreadable rows.
    """
    own = RowLog(kind=log.kind)
    for batch in read(own):
        kept = batch.filter(batch.numbers <= last_number)
        _move_unreadable(own, last_number, log)
        if len(kept):
            yield kept
        if len(kept) < len(batch):
            break
    _move_unreadable(own, last_number, log)


def _move_unreadable(own: RowLog, last_number: int, log: RowLog) -> None:
    for row in own.bad:
        if row.number <= last_number:
            log.quarantine(row.number, row.reason, row.content)
    own.bad.clear()
