"""The base class of handlers that only remove rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.handlers.base import Step, map_rows
from sftkit.handlers.columns import NamedColumnHandler

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer


@dataclass(frozen=True, kw_only=True)
class RowFilter(NamedColumnHandler):
    """Base class of handlers that keep or drop each row, and change none."""

    def sees_whole_row(self) -> bool:
        """Whether any column of a row may decide, not only those that the handler names."""
        return False

    def content_goes_to(self, column: str, tokenizer: ChatTokenizer) -> Collection[str]:
        """No column: what only decides whether a row stays is not in its tokens."""
        return ()


def filter_step(checks_of: Callable[[Batch], Callable[[int, Row], None]]) -> Step:
    """Return a step that removes rows.

    Args:
        checks_of: returns, for a batch, a function of the index of a row and the row. It raises `RowDroppedError` to
            drop the row, and `RowError` to quarantine it.
    """

    def step(batch: Batch, log: RowLog) -> Batch:
        check, indices = checks_of(batch), iter(range(len(batch)))
        return map_rows(batch, log, lambda row: check(next(indices), row))[0]

    return step
