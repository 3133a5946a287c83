"""The base class of row formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Any

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row

MESSAGES = "messages"

_WITH_LENGTH = (str, list, dict, tuple)  # a union would be made for each call


class NeedsTemplateError(RowError):
    """A row is a list of messages, which only a chat template can make a text of."""

    def __init__(self) -> None:
        super().__init__("its messages need a chat template; set chat_template")


class RowFormat(ABC):
    """A way in which the columns of a row hold a conversation, or an input and an output.

    Without a data config, rows are recognized by `fits`, and one handler for all formats converts them: to messages
    (`to_messages`, for tokenizers with a chat template) or to a pair of texts (`to_pair`). With a data config, handlers
    name the format.

    To add one: write a subclass in a module of this folder, and list it in `FORMATS` (`recognition.py`).
    """

    name: str
    """What `format` calls it."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Every column that rows of this format may have."""

    def columns_of_messages(self, row: Row) -> Collection[str]:
        """The columns that `to_messages` makes something of, for a row of this format. May raise `RowError`."""
        return self.columns

    def columns_of_pair(self, row: Row) -> Collection[str]:
        """The columns that `to_pair` makes something of; as `columns_of_messages`."""
        return self.columns_of_messages(row)

    @abstractmethod
    def fits(self, row: Row) -> bool:
        """Whether the values of a row are those of this format. Values that are null or empty do not count."""

    @abstractmethod
    def has_columns(self, row: Row) -> bool:
        """Whether a row has the columns of this format, whatever is in them. Asked if no format fits."""

    def is_pair(self, row: Row) -> bool:
        """Whether a row is a pair of texts even if the tokenizer has a chat template, unless `chat: true`."""
        return False

    @abstractmethod
    def to_messages(self, row: Row) -> Row:
        """Return the row with `messages` (and `tools`, if the format has them under another name).

        Raises:
            RowError: a value is missing or wrong.
        """

    def to_pair(self, row: Row) -> tuple[str, str]:
        """Return the input and the output, which make the text if they are concatenated; only the output is trained.

        Raises:
            RowError: a value is missing or wrong.
            NeedsTemplateError: the row is a list of messages.
        """
        raise NeedsTemplateError


def is_filled(value: Any) -> bool:
    """Return whether a value says something: null, empty text, empty lists and NaN (null in pandas) do not.

    Example:
        >>> [is_filled(value) for value in (None, "", [], float("nan"), 0, "a")]
        [False, False, False, False, True, True]
    """
    if isinstance(value, _WITH_LENGTH):
        return len(value) > 0
    return value is not None and value == value  # NaN differs from itself


def filled_columns(row: Row, columns: Iterable[str]) -> list[str]:
    """Return those of some columns that are filled."""
    return [column for column in columns if column in row and is_filled(row[column])]
