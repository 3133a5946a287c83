"""What a handler is: its arguments as a frozen dataclass, the columns it needs and makes, and the step it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from sftkit.core.row_log import EngineDifferenceError, RowDroppedError, RowError, RowLog, require_valid_text
from sftkit.core.rows import Batch, LabeledTokens, Ragged, Row
from sftkit.errors import ConfigError
from sftkit.sandbox.render_limits import TemplateLimitError

T = TypeVar("T")

Step = Callable[[Batch, RowLog], Batch]
"""One step of the pipeline: rows in, rows out; what does not pass goes to the log."""


class Tools(Protocol):
    """What handlers need of a tokenizer. See `sftkit.tokenization.chat_tokenizer.ChatTokenizer`."""

    @property
    def eos_token(self) -> str:
        """The eos token as text; `TokenizerError` when there is none."""

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer, for functions of the user's own."""

    def check_chat_template(self) -> None:
        """Raise `TokenizerError` when there is no chat template, or one that is not valid Jinja."""

    def render(self, row: Row, column: str | None) -> str:
        """The conversation of a row as text."""

    def screen(self, row: Row, column: str | None) -> tuple[Row, bool]:
        """A row whose conversation was looked through for special tokens, and whether any are left in it."""

    def screen_text(self, text: str) -> str:
        """A text that was looked through for special tokens."""

    def has_prompt_mismatch(self, row: Row, column: str | None) -> bool:
        """Whether, in a row that is chosen as a sample, what comes before a trained turn is not what the model would
        be given at inference."""

    def find_trained_spans(self, row: Row, column: str | None) -> tuple[str, list[tuple[int, int]]]:
        """The conversation of a row as text, and its trained spans in characters."""

    def check_encodable(self, text: str) -> str:
        """A text that is not too long to be encoded; `RowError` for another."""

    def encode(self, texts: Sequence[str], *, truncation: bool = False, max_length: int | None = None) -> Ragged:
        """Ids of each text as the tokenizer's call gives them."""

    def encode_conversations(self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> LabeledTokens:
        """Ids of rendered conversations and labels inside their spans."""

    def encode_pairs(self, inputs: Sequence[str], texts: Sequence[str]) -> LabeledTokens:
        """Ids of each text and labels after its input."""


@dataclass(frozen=True, kw_only=True)
class Handler:
    """Base of all handlers. The fields of a subclass are its arguments (`fn_kwargs`)."""

    def reads(self) -> tuple[str, ...]:
        """Columns that every row must have."""
        return ()

    def writes(self) -> tuple[str, ...]:
        """Columns this handler adds or replaces; `remove_columns: all` leaves these."""
        return ()

    def bind(self, tools: Tools) -> Step:
        """The step, with what it needs of the tokenizer in place.

        Raises:
            TokenizerError: the tokenizer lacks what this handler needs.
            ConfigError: the arguments do not make sense together.
        """
        raise NotImplementedError


def map_rows(batch: Batch, log: RowLog, function: Callable[[Row], T]) -> tuple[Batch, list[T]]:
    """`function` of every row, and the batch without the rows on which it raised `RowError` (quarantined) or
    `RowDroppedError` (counted).
    """
    values: list[T] = []
    kept = np.ones(len(batch), np.bool_)
    for index, row in enumerate(batch.rows):
        try:
            values.append(function(row))
        except RowError as error:
            kept[index] = False
            log.quarantine(int(batch.numbers[index]), str(error), row)
        except RowDroppedError as reason:
            kept[index] = False
            log.drop(str(reason))
        except (EngineDifferenceError, TemplateLimitError) as error:
            raise error.at(str(batch.numbers[index])) from None
    return batch.filter(kept), values


@contextmanager
def locate_engine_differences(batch: Batch) -> Iterator[None]:
    """Say of which row an `EngineDifferenceError` is, where the rows of a batch are encoded together."""
    try:
        yield
    except EngineDifferenceError as error:
        raise error.at(str(batch.numbers[error.index])) from None


def row_step(function: Callable[[Row], Row]) -> Step:
    """A step that treats rows one by one; a `RowError` quarantines the row."""

    def step(batch: Batch, log: RowLog) -> Batch:
        kept, rows = map_rows(batch, log, function)
        return kept.with_rows(rows)

    return step


def check_positive(name: str, value: int | None) -> None:
    """Raise `ConfigError` when a length that an argument gives is less than 1."""
    if value is not None and value < 1:
        raise ConfigError(f"{name} must be 1 or more, not {value}")


def text_in(row: Row, column: str) -> str:
    """The text in a column.

    Raises:
        RowError: the column is missing, null, or not text.
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
    """The sentence for a column that is not there."""
    return f"column {column!r} not found; columns here: {', '.join(columns) or 'none'}"
