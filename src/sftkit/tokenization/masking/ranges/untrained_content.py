"""What of the content of a message carries no loss: by its ranges, and by patterns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Message, text_of
from sftkit.tokenization.encoding.spans import Span, merged
from sftkit.tokenization.masking.ranges.content_patterns import Patterns
from sftkit.tokenization.masking.ranges.content_spans import carry_to_text
from sftkit.tokenization.masking.ranges.train_ranges import train_ranges

NO_PATTERNS = Patterns()


def untrained_content(message: Message, index: int, patterns: Patterns = NO_PATTERNS) -> list[Span]:
    """Return the characters of a message's content that carry no loss, ordered and disjoint.

    Args:
        message: the message.
        index: its index, for errors.
        patterns: those with the weight 0 exclude their matches.

    Raises:
        RowError: the ranges of the message are invalid.

    Example:
        >>> untrained_content({"content": "1 and 22"}, 0, Patterns((("[0-9]+", 0),)))
        [(0, 1), (6, 8)]
    """
    content = text_of(message)
    ranges = train_ranges(message, index)
    spans = [] if ranges is None else ranges.untrained(len(content))
    return merged([*spans, *((start, end) for start, end, weight in patterns.matches(content) if not weight)])


def hidden_in_content(
    text: str, places: Sequence[Span], message: Message, index: int, spans: Sequence[Span]
) -> list[Span]:
    """Return where characters of the content of a message are in a text that has it at `places`.

    Raises:
        RowError: as `carry_to_text`.
    """
    with naming_message(index):
        return carry_to_text(spans, text, places, text_of(message))


@contextmanager
def naming_message(index: int) -> Iterator[None]:
    """Add the index of a message to errors."""
    try:
        yield
    except RowError as error:
        raise RowError(f"message {index}: {error}") from None
