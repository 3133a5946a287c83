"""Which columns of the rows of a data set are used: their content reaches the tokens, or the config keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sftkit.config.schema.data_config import DatasetConfig
from sftkit.core.accounting.unused_columns import add_counts, count_column, is_filled, occurs_in
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.handlers.base import Handler
from sftkit.handlers.registry import ALL_COLUMNS, ConfiguredHandler
from sftkit.tokenization.chat_tokenizer import ChatTokenizer

_EMPTY, _TEXT, _OTHER, _STRUCTURE = range(4)

_MAX_SHAPES = 1000
"""For how many different sets of columns the result is remembered."""

SIGNIFICANT = frozenset(
    {"instruction", "instructions", "system", "system_prompt", "history", "context", "question", "query", "prompt"}
    | {"response", "completion", "messages", "conversations", "conversation", "tools", "functions", "documents"}
    | {"images", "image", "videos", "video", "audios", "audio"}
)
"""Columns that are part of a row in a known format: where one is not used, a part of the row is lost."""

_SIGNIFICANT_BESIDE = {"input": "instruction"}
"""Columns that are so only if the rows also have another one: the `input` of Alpaca rows."""


def is_significant(column: str, columns: Collection[str] = ()) -> bool:
    """Whether a column is part of a row in a known format, given all columns of the rows if they are known.

    Example:
        >>> is_significant("system"), is_significant("input"), is_significant("input", {"instruction", "input"})
        (True, False, True)
    """
    return column in SIGNIFICANT or _SIGNIFICANT_BESIDE.get(column) in columns


@dataclass(frozen=True)
class Destinations:
    """Columns whose content counts as used if they are there after all handlers."""

    text_fields: tuple[str, ...]
    """Columns that may hold the text, the first that there is counts, in rows that no handler has tokenized."""
    columns: frozenset[str]
    """Token columns and retained columns."""
    labels: frozenset[str]
    """Columns of which one says what tokens carry a loss; with it, rows are not tokenized again."""


class ColumnUse:
    """Finds the columns of rows that are not used.

    The content of a column is followed through the handlers: each says which columns it uses, and which columns their
    content gets into. Columns that are removed by name are not reported, because the user has decided so.
    """

    def __init__(
        self,
        config: DatasetConfig,
        handlers: Sequence[ConfiguredHandler],
        kept_at_load: frozenset[str] | None,
        riding: frozenset[str],
        destinations: Destinations,
        tokenizer: ChatTokenizer,
    ) -> None:
        """Prepare for the rows of a data set.

        Args:
            config: the data set.
            handlers: its handlers.
            kept_at_load: the columns that are kept when rows are read; None keeps all.
            riding: columns that are kept beside the handlers, whatever these do with them.
            destinations: where content counts as used.
            tokenizer: its chat template decides what conversations use.
        """
        self._config = config
        self._handlers = handlers
        self._kept_at_load = kept_at_load
        self._riding = riding
        self._destinations = destinations
        self._tokenizer = tokenizer
        self._unused: dict[tuple[tuple[str, ...], frozenset[str] | None], tuple[str, ...]] = {}
        first = handlers[0].handler if handlers and not config.rename_columns else None
        depends = first is not None and type(first).columns_used is not Handler.columns_used
        self._first = first if depends else None
        """The first handler, if the columns that it uses depend on the values of a row."""
        self._used_by_shape: dict[tuple[int, ...], frozenset[str] | None] = {}
        self._optional = frozenset(first.may_read(tokenizer) or () if first is not None and depends else ())

        self._deciding = tuple(self._optional.union(self._first.reads() if self._first is not None else ()))

    def unused(self, row: Row, tokens: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return those of the columns of a row that are not used.

        Args:
            row: the row.
            tokens: its columns that are arrays.
        """
        columns = tuple(row) + tokens
        return self._unused_of(columns, None if self._optional.isdisjoint(columns) else self._used_by_first(row))

    def count(self, batch: Batch, log: RowLog) -> None:
        """Count, in the log, the rows of a batch in which each unused column is filled.

        A significant column whose text is also in the columns that are used is not counted.
        """
        tokens = tuple(batch.tokens)
        filled: dict[str, list[int]] = {name: self._filled_tokens(name, batch) for name in self.unused({}, tokens)}
        last: tuple[str, ...] | None = None
        unused: tuple[str, ...] = ()
        for index, row in enumerate(batch.rows):
            columns = tuple(row)
            if columns != last or not self._optional.isdisjoint(columns):
                last, unused = columns, self.unused(row, tokens)
            for name in unused:
                if name in row and is_filled(row[name]) and not self.is_repeated(name, row, unused):
                    filled.setdefault(name, []).append(index)
        for name, indices in filled.items():
            if indices:
                log.count_unused_column(name, batch.numbers[indices].tolist())

    def _used_by_first(self, row: Row) -> frozenset[str] | None:
        if self._first is None:
            return None
        shape = tuple([_kind_of(row.get(name)) for name in self._deciding])
        if _STRUCTURE in shape:  # what is in it may decide
            return self._first.columns_used(row)
        if shape not in self._used_by_shape:
            if len(self._used_by_shape) >= _MAX_SHAPES:
                self._used_by_shape.clear()
            self._used_by_shape[shape] = self._first.columns_used(row)
        return self._used_by_shape[shape]

    def _unused_of(self, columns: tuple[str, ...], used: frozenset[str] | None) -> tuple[str, ...]:
        if (columns, used) not in self._unused:
            if len(self._unused) >= _MAX_SHAPES:
                self._unused.clear()
            final = self._destinations.columns | self._text_field(columns)
            self._unused[columns, used] = tuple(name for name in columns if not self._is_used(name, final, used))
        return self._unused[columns, used]

    def is_repeated(self, name: str, row: Row, unused: Collection[str]) -> bool:
        """Whether a column is significant, and its text is also in columns of the row that are used."""
        if not is_significant(name, row):
            return False
        return occurs_in(row[name], (value for other, value in row.items() if other not in unused))

    def _filled_tokens(self, name: str, batch: Batch) -> list[int]:
        filled: list[int] = batch.tokens[name].lengths.nonzero()[0].tolist()
        return filled

    def _text_field(self, columns: tuple[str, ...]) -> frozenset[str]:
        """Return the column with the text, of rows that have these columns when they are read; none for tokens."""
        renamed = {self._config.rename_columns.get(name, name) for name in columns} - set(self._config.remove_columns)
        current = renamed if self._kept_at_load is None else renamed & self._kept_at_load
        for each in self._handlers:
            current = each.columns_after(current)
        if not self._destinations.labels.isdisjoint(current):
            return frozenset()
        return frozenset([name for name in self._destinations.text_fields if name in current][:1])

    def _is_used(self, column: str, final: Collection[str], used: frozenset[str] | None) -> bool:
        """Follow the content of a column; True also if it is removed by name, or if nothing is known of a handler.

        Args:
            column: the column.
            final: columns whose content counts as used after all handlers.
            used: the columns that the first handler uses, if that depends on the row.
        """
        holders = {self._config.rename_columns.get(column, column)}
        if holders & set(self._config.remove_columns):
            return True
        if self._kept_at_load is not None:
            holders &= self._kept_at_load
        if holders & self._riding:
            return True
        for index, each in enumerate(self._handlers):
            handler = each.handler
            taken = holders if index or used is None else holders & used
            if holders and (handler.makes_new_rows or handler.may_read(self._tokenizer) is None):
                return True
            if holders & {*handler.removes(), *each.remove_columns} - set(handler.survive_removal()):
                return True
            reached = {name for holder in taken for name in handler.content_goes_to(holder, self._tokenizer)}
            replaced = set(handler.writes()) - reached
            kept = handler.keeps(holders) - replaced
            if ALL_COLUMNS in each.remove_columns:
                kept &= set(handler.survive_removal())
            holders = kept | reached
        return not holders.isdisjoint(final)


@dataclass(frozen=True)
class ColumnSample:
    """What the first rows of a data set tell about its unused columns."""

    rows: int
    unused: Mapping[str, int]
    """Columns that are not used -> rows in which they are filled, with text that is in no other column."""
    repeated: Mapping[str, int]
    """Significant columns that are not used -> rows in which columns that are used hold the same text."""
    columns: frozenset[str]
    """All columns of the rows."""
    kind: RowKind | None
    """What the handlers make of rows."""


def _kind_of(value: object) -> int:
    """Tell apart what the columns used by a handler may depend on, without looking into a value."""
    if isinstance(value, str):
        return _STRUCTURE if value.startswith(("[", "{")) else _TEXT if value and not value.isspace() else _EMPTY
    if value is None:
        return _EMPTY
    return _STRUCTURE if isinstance(value, (list, dict)) else _OTHER


def sample_columns(use: ColumnUse, kind: RowKind | None, batch: Batch) -> ColumnSample:
    """Count the rows of a batch in which each unused column is filled."""
    log = RowLog()
    use.count(batch, log)
    repeated: Counter[str] = Counter()
    tokens = tuple(batch.tokens)
    for row in batch.rows:
        unused = use.unused(row, tokens)
        for name in unused:
            if name in row and is_filled(row[name]) and use.is_repeated(name, row, unused):
                count_column(repeated, name)
    return ColumnSample(len(batch), add_counts([log.unused_columns]), repeated, frozenset(batch.columns()), kind)
