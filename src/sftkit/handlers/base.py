"""The base class of data handlers, and functions that several handlers use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from sftkit.config.fields import to_plain_data
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import EngineDifferenceError, RowDroppedError, RowError, RowLog, require_valid_text
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError
from sftkit.sandbox.render_limits import TemplateLimitError
from sftkit.sandbox.watchdog import watchdog

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

T = TypeVar("T")

Step = Callable[[Batch, RowLog], Batch]
"""One step of the pipeline: takes a batch, returns the rows that remain, and records the others in the log."""


@dataclass(frozen=True, kw_only=True)
class Handler(ABC):
    """Base class of the data handlers. Each entry of `data_handlers` in a config creates one.

    The fields of a subclass are its arguments (`fn_kwargs`). They are read from the config and checked before any data
    is read. `bind` then returns the step that changes the rows. All other methods describe the handler, so that the
    rest of the package need not know it: which columns it reads and writes, and what rows are made of afterwards.

    A handler in this folder is found by its `registered_as`. A handler of another package is registered as an entry
    point of the group `sftkit.handlers` (see `sftkit.core.plugins`):

        @dataclass(frozen=True, kw_only=True)
        class Lowercase(Handler):
            column: str = option(help="Column whose text is changed.")

            def reads(self):
                return (self.column,)

            def produces(self):
                return None

            def bind(self, tokenizer):
                return row_step(lambda row: {**row, self.column: text_in(row, self.column).lower()})
    """

    registered_as: ClassVar[str] = ""
    """The name of a built-in handler in configs; "" for base classes and for handlers of other packages."""

    makes_new_rows: ClassVar[bool] = False
    """Whether the step returns new rows, whose columns are known only after it has run. `remove_columns` then does
    nothing."""

    @abstractmethod
    def produces(self) -> RowKind | None:
        """Tell what rows are made of after this handler; None if it only changes columns.

        The audit derives its expectations from this. Return `RowKind.UNKNOWN` when in doubt.
        """

    @abstractmethod
    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Return the step that changes the rows.

        Raises:
            TokenizerError: the tokenizer lacks something that this handler needs.
            ConfigError: the arguments contradict each other.
        """

    @property
    def ends_with_stop_token(self) -> bool:
        """Whether every row of pairs or text that this handler makes ends with a stop token."""
        return True

    def reads(self) -> tuple[str, ...]:
        """Columns that every row must have."""
        return ()

    def writes(self) -> tuple[str, ...]:
        """Columns that this handler adds or replaces; `remove_columns: all` keeps them."""
        return ()

    def survive_removal(self) -> tuple[str, ...]:
        """Columns that `remove_columns` of the same entry leaves: those that the handler returns."""
        return self.writes()

    def may_read(self, tokenizer: ChatTokenizer) -> Collection[str] | None:
        """Columns that this handler uses if a row has them, besides those that it `reads`; None if it may use any.

        Columns that no handler uses are reported, so that no data is lost without notice.
        """
        return None

    def columns_used(self, row: Row) -> frozenset[str] | None:
        """The columns of a row that this handler uses, where that depends on their values; None if it does not.

        Asked only of the first handler, for every row; it must not raise an error.
        """
        return None

    def content_goes_to(self, column: str, tokenizer: ChatTokenizer) -> Collection[str]:
        """Columns that the content of a column gets into. The column itself, if it is kept, need not be among them."""
        optional = self.may_read(tokenizer)
        return self.writes() if optional is None or column in self.reads() or column in optional else ()

    def keeps(self, columns: Collection[str]) -> set[str]:
        """Those of a row's columns that this handler keeps."""
        return set(columns)

    def check_arguments(self) -> None:
        """Check what can be known of the arguments without data or tokenizer.

        Raises:
            ConfigError: one is wrong; the message begins with its name.
        """
        return

    def functions(self) -> tuple[str, ...]:
        """Functions of the user that this handler calls, each `package.module:function`."""
        return ()

    def needs_token_columns(self) -> tuple[str, ...]:
        """Token columns among those that it `reads`, which rows or an earlier handler must have made."""
        return ()

    def removes(self) -> tuple[str, ...]:
        """Columns that the arguments ask to remove, by name."""
        return ()

    def retains(self) -> tuple[str, ...]:
        """Columns that the shards must have because the arguments name them."""
        return ()

    def text_column(self) -> str | None:
        """The column with the text that this handler reads or writes, if it handles the text of the row."""
        return None

    def sees_tokenizer_limits(self) -> bool:
        """Whether the result depends on the tokenizer's `model_max_length` and `truncation_side`."""
        return False

    def identity(self) -> Any:
        """What the handler does, as JSON can hold it: handlers with equal identities make equal rows."""
        return to_plain_data(self)


def map_rows(batch: Batch, log: RowLog, function: Callable[[Row], T]) -> tuple[Batch, list[T]]:
    """Call a function on every row.

    A row on which it raises `RowError` is quarantined; one on which it raises `RowDroppedError` is dropped.

    Returns:
        The batch without those rows, and the function's result for each row that is left.
    """
    values: list[T] = []
    kept = np.ones(len(batch), np.bool_)
    watched = watchdog()
    for index, (row, number) in enumerate(zip(batch.rows, batch.numbers.tolist(), strict=True)):
        watched.at_row(number)
        try:
            values.append(function(row))
        except RowError as error:
            kept[index] = False
            log.quarantine(int(batch.numbers[index]), str(error), row)
        except RowDroppedError as reason:
            kept[index] = False
            log.drop(str(reason), [number], [row], [reason.details])
        except (EngineDifferenceError, TemplateLimitError) as error:
            raise error.at(str(batch.numbers[index])) from None
    watched.at_row(0)
    return batch.filter(kept), values


@contextmanager
def locate_engine_differences(batch: Batch) -> Iterator[None]:
    """Add the row number to an `EngineDifferenceError` that is raised while the rows of a batch are encoded."""
    try:
        yield
    except EngineDifferenceError as error:
        raise error.at(str(batch.numbers[error.index])) from None


def row_step(function: Callable[[Row], Row]) -> Step:
    """Make a step of a function that changes one row; the function may raise as in `map_rows`."""

    def step(batch: Batch, log: RowLog) -> Batch:
        kept, rows = map_rows(batch, log, function)
        return kept.with_rows(rows)

    return step


def check_positive(name: str, value: int | None) -> None:
    """Raise `ConfigError` if a length is less than 1."""
    if value is not None and value < 1:
        raise ConfigError(f"{name} must be 1 or more, not {value}")


def text_in(row: Row, column: str) -> str:
    """Return the text in a column.

    Raises:
        RowError: the column is missing or null, or holds something else.
    """
    try:
        value = row[column]
    except KeyError:
        raise RowError(missing_column_message(column, row)) from None
    if isinstance(value, str):
        return require_valid_text(value)
    if value is None:
        raise RowError(f"column {column!r} is null where text should be")
    raise RowError(f"column {column!r} must be text, not {type(value).__name__}")


def missing_column_message(column: str, columns: Sequence[str] | Row) -> str:
    """Say that a column is missing, and which columns there are."""
    return f"column {column!r} not found; columns here: {', '.join(columns) or 'none'}"
