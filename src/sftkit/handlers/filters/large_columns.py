"""Handlers that drop rows of which one column is too large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sftkit.config.fields import option
from sftkit.core.row_log import RowError, RowLog
from sftkit.core.rows import Batch
from sftkit.handlers.base import Step, check_positive, map_rows
from sftkit.handlers.columns import ColumnHandler, NamedColumnHandler, require_columns

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer


@dataclass(frozen=True, kw_only=True)
class SkipLargeText(NamedColumnHandler):
    """Keeps rows whose column is strictly shorter than `max_length`."""

    registered_as = "skip_large_text"

    column_name: str = option(help="Column that is measured: tokens of `input_ids`, characters of text.")
    max_length: int = option(help="Rows this long or longer are dropped.")

    def reads(self) -> tuple[str, ...]:
        """The measured column."""
        return (self.column_name,)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Measure each row, and drop it if it is too large."""
        check_positive("skip_large_text: max_length", self.max_length)
        reason = f"skip_large_text: {self.column_name} has {self.max_length} or more"
        return _length_filter(self.column_name, self.max_length - 1, reason)


@dataclass(frozen=True, kw_only=True)
class SkipSamplesWithLargeColumns(ColumnHandler):
    """Keeps rows whose column has at most `max_length`; unlike `skip_large_text`, those of exactly this length too."""

    registered_as = "skip_samples_with_large_columns"

    column_name: str = option(help="Column that is measured: tokens of `input_ids`, characters of text.")
    max_length: int = option(help="Longer rows are dropped. Also called `max_allowed_length`.")

    def reads(self) -> tuple[str, ...]:
        """The measured column."""
        return (self.column_name,)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Measure each row, and drop it if it is too large."""
        check_positive("skip_samples_with_large_columns: max_length", self.max_length)
        reason = f"skip_samples_with_large_columns: {self.column_name} has more than {self.max_length}"
        return _length_filter(self.column_name, self.max_length, reason)


def _length_filter(column: str, limit: int, reason: str) -> Step:
    """Return the step that keeps rows of which a column has at most `limit` tokens, characters or items."""

    def step(batch: Batch, log: RowLog) -> Batch:
        batch = require_columns(batch, log, (column,))
        if column in batch.tokens:
            lengths = batch.tokens[column].lengths
        else:
            batch, measured = map_rows(batch, log, lambda row: _length(row[column], column))
            lengths = np.array(measured, np.int64)
        kept = lengths <= limit
        dropped = batch.filter(~kept)
        log.drop(reason, dropped.numbers, dropped.rows)
        return batch.filter(kept)

    return step


def _length(value: object, column: str) -> int:
    if isinstance(value, (str, list, tuple)):
        return len(value)
    kind = "null" if value is None else type(value).__name__
    raise RowError(f"column {column!r} must be text or a list to be measured, not {kind}")
