"""Tokenizes texts in segments that say themselves which of them carry a loss."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.config.fields import option
from sftkit.config.words import parse_boolean
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import RowError, RowLog, require_valid_text
from sftkit.core.rows import ATTENTION_MASK, INPUT_IDS, LABELS, Batch, Row
from sftkit.handlers.base import Handler, Step, locate_engine_differences, map_rows, missing_column_message
from sftkit.handlers.messages.tool_calls import parse_json, type_name
from sftkit.handlers.tokens import add_token_columns

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

SEGMENTS = "segments"


def are_segments(value: Any) -> bool:
    """Return whether a value is a list of segments, or JSON text of one.

    Example:
        >>> are_segments([{"label": True, "text": "yes"}]), are_segments([{"start": 0.5, "text": "yes"}])
        (True, False)
    """
    with suppress(RowError):
        value = parse_json(value, "it")
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and {"label", "text"} <= each.keys() for each in value)
    )


@dataclass(frozen=True, kw_only=True)
class TokenizeSegments(Handler):
    """Tokenizes a list of segments (`label`, `text`), the format `input_output` of axolotl: each segment by itself, and
    without special tokens that are not in its text. The tokens of segments whose label is true carry a loss.
    """

    registered_as = "tokenize_segments"

    segments_column: str = option(SEGMENTS, help="Column that holds the segments, a list or JSON text of one.")

    def produces(self) -> RowKind:
        """Tokens with the labels of the data."""
        return RowKind.UNKNOWN

    def reads(self) -> tuple[str, ...]:
        """The column of the segments."""
        return (self.segments_column,)

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """No other column."""
        return ()

    def writes(self) -> tuple[str, ...]:
        """The token columns."""
        return (INPUT_IDS, LABELS, ATTENTION_MASK)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Encode the segments of a batch at a time."""

        def segments(row: Row) -> list[tuple[str, bool]]:
            if self.segments_column not in row:
                raise RowError(missing_column_message(self.segments_column, row))
            found = _segments(row[self.segments_column], self.segments_column)
            for text, _ in found:
                tokenizer.check_spans(tokenizer.check_encodable(text), [(0, len(text))])
            return found

        def step(batch: Batch, log: RowLog) -> Batch:
            batch, rows = map_rows(batch, log, segments)
            with locate_engine_differences(batch):
                return add_token_columns(batch, tokenizer.encode_segments(rows))

        return step


def _segments(value: Any, column: str) -> list[tuple[str, bool]]:
    if isinstance(value, str):
        value = parse_json(value, f"column {column!r}")
    if not isinstance(value, list) or not value:
        raise RowError(f"column {column!r} must hold a list of segments, not {type_name(value)}")
    return [_segment(segment, f"segment {index} of column {column!r}") for index, segment in enumerate(value)]


def _segment(segment: Any, where: str) -> tuple[str, bool]:
    if not isinstance(segment, dict):
        raise RowError(f"{where} must be an object with a label and a text, not {type_name(segment)}")
    label, text = segment.get("label"), segment.get("text")
    is_trained = parse_boolean(label)
    if is_trained is None:
        raise RowError(f"{where}: its label must be true or false, not {type_name(label)}")
    if not isinstance(text, str):
        raise RowError(f"{where}: its text must be text, not {type_name(text)}")
    return require_valid_text(text), is_trained
