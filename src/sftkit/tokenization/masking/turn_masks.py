"""Finds what of a trained turn carries no loss by the config: its reasoning, its tool calls, its stop token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sftkit.core.row_log import RowError
from sftkit.core.token_kinds import TokenKind
from sftkit.tokenization.conversations import Message
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.reasoning import answer_start
from sftkit.tokenization.masking.turn_parts import call_names, is_call, turn_parts

KEEP, MASK, LAST_ONLY = "keep", "mask", "last_only"
ALL_STOPS, LAST_STOP, NO_STOP = "all", "last", "none"


@dataclass(frozen=True)
class TurnMasks:
    """Which kinds of parts of trained turns carry no loss."""

    reasoning: str = KEEP
    """KEEP, MASK or LAST_ONLY: train the reasoning of all trained turns, of none, or of the last of them."""
    tool_calls: str = KEEP
    """KEEP or MASK."""
    stop: str = ALL_STOPS
    """Train the stop token of all trained turns (ALL_STOPS), of the last of them (LAST_STOP), or of none (NO_STOP)."""

    @property
    def hide_something(self) -> bool:
        """Whether a trained turn may have parts that carry no loss."""
        return self != NO_MASKS

    @property
    def need_stops(self) -> bool:
        """Whether it matters where the stop token of a turn starts."""
        return self.tool_calls == MASK or self.stop != ALL_STOPS

    def hides_reasoning(self, *, is_last: bool) -> bool:
        """Return whether the reasoning of a trained turn carries no loss; `is_last` if no trained turn follows."""
        return self.reasoning == MASK or (self.reasoning == LAST_ONLY and not is_last)

    def hides_stop(self, *, is_last: bool) -> bool:
        """Return whether the stop token of a trained turn carries no loss; `is_last` if no trained turn follows."""
        return self.stop == NO_STOP or (self.stop == LAST_STOP and not is_last)

    def hidden(self, text: str, turn: Span, stop: int, message: Message, *, is_last: bool) -> Iterator[Span]:
        """Yield the characters of a turn that carry no loss.

        Args:
            text: the whole conversation.
            turn: the produced part of the turn.
            stop: where its stop token starts; the end of the turn if it has none, or if `need_stops` is false.
            message: the message of the turn.
            is_last: no trained turn follows.

        Raises:
            RowError: it is unknown where its reasoning ends or its tool calls are, and they carry no loss.

        Example:
            >>> text = "<think>hm</think>yes</s>"
            >>> masks = TurnMasks(reasoning="mask", stop="none")
            >>> [text[a:b] for a, b in masks.hidden(text, (0, 24), 20, {"content": "yes"}, is_last=True)]
            ['<think>hm</think>', '</s>']
        """
        start, end = turn
        if self.hides_reasoning(is_last=is_last):
            yield start, answer_start(text, start, end, message)
        if self.tool_calls == MASK:
            yield from _tool_calls(text, turn, stop, message)
        if self.hides_stop(is_last=is_last):
            yield stop, end


NO_MASKS = TurnMasks()
"""All of a trained turn carries a loss."""


def _tool_calls(text: str, turn: Span, stop: int, message: Message) -> Iterator[Span]:
    """Yield the tool calls of a turn.

    Raises:
        RowError: the message has calls, and it is unknown where they are.
    """
    if not call_names(message) and not is_call(message):
        return
    parts = turn_parts(text, turn, stop, message)
    found = [(part.start, part.end) for part in parts if part.kind == TokenKind.TOOL_CALL]
    if not found:
        raise RowError("cannot find where the tool calls of this turn are; cannot mask them")
    yield from found
