"""What handlers share that read rows of any format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftkit.config.fields import option
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.base import Step, missing_column_message, row_step
from sftkit.handlers.columns import ColumnHandler
from sftkit.handlers.formats.message_lists import CONVERSATION_COLUMNS
from sftkit.handlers.formats.prompt_completion import PromptCompletion
from sftkit.handlers.formats.recognition import FORMATS, NAMED_FORMATS, check_nothing_is_left, format_of, with_answer
from sftkit.handlers.formats.row_format import RowFormat
from sftkit.handlers.formats.values import EmptyAnswerError

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer


@dataclass(frozen=True, kw_only=True)
class FormatHandler(ColumnHandler):
    """Base class of handlers that convert rows of any format."""

    format: str | None = option(
        None,
        choices=tuple(NAMED_FORMATS),
        help="Format of the rows. By default, the format of each row is recognized by its columns.",
    )
    columns: Mapping[str, str] = option(
        factory=dict, help="Columns that have other names than in the format: name in the format -> your name."
    )
    answer_column: str | None = option(
        None, help="Column with the answer, where rows have several, such as `chosen` of preference rows."
    )

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """The columns of the format; of all formats, if it is not named. An answer may continue a conversation."""
        formats = FORMATS if self.format is None else (NAMED_FORMATS[self.format],)
        known = [self.columns.get(name, name) for each in formats for name in each.columns]
        if self.answer_column is not None:
            known.append(self.answer_column)
            known += CONVERSATION_COLUMNS if self.format in (None, PromptCompletion.name) else ()
        return tuple(dict.fromkeys(known))

    def columns_used(self, row: Row) -> frozenset[str] | None:
        """The columns of the format of a row that the conversion makes something of."""
        if self.answer_column is not None:  # it changes which columns the row has
            return None
        try:
            found, named = self.read_format(row)
            used = self.columns_of_format(found, named)
        except RowError:
            return None
        return frozenset(self.columns.get(name, name) for name in used)

    @abstractmethod
    def columns_of_format(self, found: RowFormat, row: Row) -> Collection[str]:
        """The columns of a row, with the names of its format, that the conversion makes something of."""

    def read_format(self, row: Row) -> tuple[RowFormat, Row]:
        """Return the format of a row, and the row with the column names of the format.

        Raises:
            RowError: the format is not known, or a column that the arguments name is missing.
        """
        if self.columns:
            missing = next((name for name in self.columns.values() if name not in row), None)
            if missing is not None:
                raise RowError(missing_column_message(missing, row))
            others = {name: value for name, value in row.items() if name not in self.columns.values()}
            row = {**others, **{name: row[given] for name, given in self.columns.items()}}
        if self.answer_column is not None:
            row = with_answer(row, self.answer_column)
        if self.format is not None:
            return NAMED_FORMATS[self.format], row
        found = format_of(row)
        check_nothing_is_left(row, found)
        return found, row

    def converting(self, tokenizer: ChatTokenizer, convert: Callable[[Row], Row]) -> Step:
        """Make a step of a function that converts a row. An empty answer is dropped if the config drops such rows."""

        def convert_or_drop(row: Row) -> Row:
            try:
                return convert(row)
            except EmptyAnswerError:
                tokenizer.is_empty_answer("")
                raise

        return row_step(convert_or_drop)
