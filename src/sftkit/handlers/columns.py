"""Handlers that copy, rename, keep or remove columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftkit.config.fields import option
from sftkit.core.row_log import RowError, RowLog
from sftkit.core.rows import LABELS, LOSS_MASKS, TOKEN_COLUMNS, Batch, Row
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.handlers.base import Handler, Step, map_rows, missing_column_message

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer


@dataclass(frozen=True, kw_only=True)
class ColumnHandler(Handler):
    """Base class of handlers that do not change the kind of row (text, tokens or conversation)."""

    def produces(self) -> None:
        """None: tokens and text stay what they are."""
        return


@dataclass(frozen=True, kw_only=True)
class NamedColumnHandler(ColumnHandler):
    """Base class of those that use no other columns than their arguments name."""

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """No column besides those that every row must have."""
        return ()


@dataclass(frozen=True, kw_only=True)
class DuplicateColumns(NamedColumnHandler):
    """Copies a column under another name."""

    registered_as = "duplicate_columns"

    old_column: str = option(help="Column that is copied.")
    new_column: str = option(help="Name of the copy.")

    def reads(self) -> tuple[str, ...]:
        """The old column."""
        return (self.old_column,)

    def writes(self) -> tuple[str, ...]:
        """The new column."""
        return (self.new_column,)

    def survive_removal(self) -> tuple[str, ...]:
        """Both columns."""
        return (self.old_column, self.new_column)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Copy a column of Python values or of tokens."""

        def step(batch: Batch, log: RowLog) -> Batch:
            batch = require_columns(batch, log, (self.old_column,))
            if self.old_column in batch.tokens:
                return batch.with_tokens(**{self.new_column: batch.tokens[self.old_column]})
            return batch.with_rows([{**row, self.new_column: row[self.old_column]} for row in batch.rows])

        return step


@dataclass(frozen=True, kw_only=True)
class RenameColumns(NamedColumnHandler):
    """Renames columns."""

    registered_as = "rename_columns"

    columns: Mapping[str, str] = option(help="Old name: new name.")

    def reads(self) -> tuple[str, ...]:
        """The old names."""
        return tuple(self.columns)

    def writes(self) -> tuple[str, ...]:
        """The new names."""
        return tuple(self.columns.values())

    def content_goes_to(self, column: str, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """The new name of the column."""
        return (self.columns[column],) if column in self.columns else ()

    def keeps(self, columns: Collection[str]) -> set[str]:
        """All but the old names."""
        return set(columns) - set(self.columns)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Rename columns of Python values and of tokens."""

        def step(batch: Batch, log: RowLog) -> Batch:
            batch = require_columns(batch, log, self.reads())
            batch, _ = map_rows(batch, log, self._check_new_names)
            rows = [{self.columns.get(name, name): value for name, value in row.items()} for row in batch.rows]
            tokens = {self.columns.get(name, name): column for name, column in batch.tokens.items()}
            return Batch(rows, batch.numbers, tokens)

        return step

    def _check_new_names(self, row: Row) -> None:
        for old, new in self.columns.items():
            if new in row and new not in self.columns and new != old:
                raise RowError(f"column {old!r} cannot be renamed {new!r}: there is a column of that name")


@dataclass(frozen=True, kw_only=True)
class RetainColumns(NamedColumnHandler):
    """Keeps the named columns and no others, except for the columns of tokens."""

    registered_as = "retain_columns"

    columns: tuple[str, ...] = option(help="Columns to keep.")

    def reads(self) -> tuple[str, ...]:
        """The columns that stay."""
        return self.columns

    def keeps(self, columns: Collection[str]) -> set[str]:
        """The columns that stay."""
        return set(columns) & self._kept

    def retains(self) -> tuple[str, ...]:
        """The columns that stay."""
        return self.columns

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Remove all other columns."""

        def step(batch: Batch, log: RowLog) -> Batch:
            return keep_columns(require_columns(batch, log, self.columns), self._kept)

        return step

    @property
    def _kept(self) -> frozenset[str]:
        return frozenset({*self.columns, *TOKEN_COLUMNS, *LOSS_MASKS, LOSS_WEIGHTS})


@dataclass(frozen=True, kw_only=True)
class RemoveColumns(NamedColumnHandler):
    """Drops the named columns."""

    registered_as = "remove_columns"

    columns: tuple[str, ...] = option(help="Columns to remove.")

    def reads(self) -> tuple[str, ...]:
        """The removed columns, which must exist."""
        return self.columns

    def keeps(self, columns: Collection[str]) -> set[str]:
        """All but the removed columns."""
        return set(columns) - set(self.columns)

    def removes(self) -> tuple[str, ...]:
        """The removed columns."""
        return self.columns

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Remove the columns."""

        def step(batch: Batch, log: RowLog) -> Batch:
            batch = require_columns(batch, log, self.columns)
            return keep_columns(batch, frozenset(batch.columns()) - frozenset(self.columns))

        return step


def require_columns(batch: Batch, log: RowLog, columns: Collection[str]) -> Batch:
    """Return the rows that have all these columns; quarantine the others."""
    in_rows = [column for column in columns if column not in batch.tokens]

    def check(row: Row) -> None:
        for column in in_rows:
            if column not in row:
                raise RowError(missing_column_message(column, [*row, *batch.tokens]))

    return map_rows(batch, log, check)[0]


def keep_columns(batch: Batch, columns: Collection[str]) -> Batch:
    """Return the same rows with these columns only; the kinds and weights of tokens stay if their labels do."""
    kept = {*columns, TOKEN_KINDS, LOSS_WEIGHTS} if LABELS in columns else columns
    rows: list[Row] = [{name: value for name, value in row.items() if name in columns} for row in batch.rows]
    return Batch(rows, batch.numbers, {name: column for name, column in batch.tokens.items() if name in kept})
