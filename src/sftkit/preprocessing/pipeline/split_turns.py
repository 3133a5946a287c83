"""`overflow: split_turns`: conversations that are too long become several rows, each of whole exchanges.

An exchange begins at a user turn and has at least one answer. A row gets as many exchanges as fit, after the system
turns that the conversation begins with; `tools` and all other columns are repeated. Each row is rendered by the chat
template as any other, so it is what the template makes of these messages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sftkit.core.accounting.row_notes import RowNotes
from sftkit.core.message_fields import USER_ROLES
from sftkit.core.row_log import RowError, RowLog
from sftkit.core.rows import INPUT_IDS, Batch, Row, ragged_where
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.core.weights.weighted_tokens import with_weights
from sftkit.handlers.base import Step, map_rows
from sftkit.handlers.registry import ConfiguredHandler
from sftkit.handlers.tokens import TokenizeAndApplyChatTemplateWithMasking
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.conversations import Message, is_assistant, read_conversation, role_of

_SYSTEM_ROLES = frozenset({"system", "developer"})


@dataclass(frozen=True)
class _Piece:
    """A part of a conversation."""

    row: Row
    fits: bool


def splits_turns(configured: ConfiguredHandler) -> bool:
    """Return whether a handler tokenizes conversations, which can be split."""
    return isinstance(configured.handler, TokenizeAndApplyChatTemplateWithMasking)


def bind_with_split_turns(configured: ConfiguredHandler, tokenizer: ChatTokenizer, limit: int) -> Step:
    """Return the step of a handler that tokenizes conversations; those of more than `limit` tokens are split.

    Raises:
        ConfigError, TokenizerError: as `Handler.bind`.
    """
    handler = configured.handler
    assert isinstance(handler, TokenizeAndApplyChatTemplateWithMasking)
    shortest = min(limit, handler.max_seq_length or limit)
    whole = replace(configured, handler=replace(handler, max_seq_length=None)).bind(tokenizer)
    splitter = _Splitter(tokenizer, handler.conversation_column, shortest)
    handler.bind(tokenizer)  # checks its arguments

    def step(batch: Batch, log: RowLog) -> Batch:
        done = whole(batch, log)
        is_long = done.tokens[INPUT_IDS].lengths > shortest
        if not is_long.any():
            return done
        numbers = done.numbers[is_long]
        found, pieces = map_rows(batch.filter(np.isin(batch.numbers, numbers)), log, splitter.split)
        made: list[tuple[int, Row]] = []
        for number, (notes, parts) in zip(found.numbers.tolist(), pieces, strict=True):
            log.take_back(number, notes)
            log.add_rows(number, len(parts) - 1)
            too_long = [part.row for part in parts if not part.fits]
            log.drop(f"a single exchange is longer than max_seq_length={shortest}", [number] * len(too_long), too_long)
            made += [(number, part.row) for part in parts if part.fits]
        rows = Batch([row for _, row in made], np.array([number for number, _ in made], np.int64))
        return _merged(done.filter(~is_long), whole(rows, log))

    return step


class _Splitter:
    """Splits conversations into pieces of at most `limit` tokens."""

    def __init__(self, tokenizer: ChatTokenizer, column: str | None, limit: int) -> None:
        self._tokenizer = tokenizer
        self._column = column
        self._limit = limit

    def split(self, row: Row) -> tuple[RowNotes, list[_Piece]]:
        """Split the conversation of a row, and return what is noted about the whole of it, too.

        Raises:
            RowError: the row has no conversation.
        """
        prepared = self._tokenizer.conversations.prepare(row, self._column)
        row = prepared.row
        conversation = read_conversation(row, self._column)
        messages = list(conversation.message_list)
        column = self._column or conversation.column
        assert column is not None
        starts = _exchange_starts(messages)
        head, ends = messages[: starts[0]], [*starts[1:], len(messages)]

        def piece(first: int, last: int) -> Row:
            """Return the row with the exchanges `first` to `last`, inclusive."""
            return {**row, column: [*head, *messages[starts[first] : ends[last]]]}

        return prepared.notes, self._pieces(piece, len(starts))

    def _pieces(self, piece: Callable[[int, int], Row], count: int) -> list[_Piece]:
        """Give each piece as many exchanges as fit."""
        alone = [self._length(piece(index, index)) for index in range(count)]
        shared = self._shared(alone, piece)
        pieces, first = [], 0
        while first < count:
            last, estimate = first, alone[first]
            while last + 1 < count and estimate + alone[last + 1] - shared <= self._limit:
                last += 1
                estimate += alone[last] - shared
            while last > first and self._length(piece(first, last)) > self._limit:
                last -= 1
            while last + 1 < count and alone[first] <= self._limit and self._fits(piece(first, last + 1)):
                last += 1
            fits = last > first or alone[first] <= self._limit or alone[first] == math.inf
            pieces.append(_Piece(piece(first, last), fits))
            first = last + 1
        return pieces

    def _shared(self, alone: Sequence[float], piece: Callable[[int, int], Row]) -> float:
        """Return how many tokens every exchange has that it shares with others in one row: those of the system turn."""
        if len(alone) < 2 or math.inf in alone[:2]:
            return 0
        together = self._length(piece(0, 1))
        return 0 if together == math.inf else max(0, alone[0] + alone[1] - together)

    def _fits(self, row: Row) -> bool:
        return self._length(row) <= self._limit

    def _length(self, row: Row) -> float:
        """Return the tokens of a conversation; infinite if it cannot be rendered, which shows when it is tokenized."""
        try:
            text, spans, ends = self._tokenizer.conversations.find_with_prompts(row, self._column)
        except RowError:
            return math.inf
        return int(self._tokenizer.encode_conversations([text], [spans], [ends]).input_ids.lengths[0])


def _exchange_starts(messages: Sequence[Message]) -> list[int]:
    """Return where the exchanges of a conversation begin. The first begins after the leading system turns.

    Example:
        >>> _exchange_starts([{"role": role} for role in ("system", "user", "assistant", "user", "user", "assistant")])
        [1, 3]
        >>> _exchange_starts([{"role": role} for role in ("user", "assistant", "user")])
        [0]
    """
    roles = [_role(message) for message in messages]
    answers = [index for index, message in enumerate(messages) if is_assistant(message)]
    first = next((index for index, role in enumerate(roles) if role not in _SYSTEM_ROLES), 0)
    starts = [first]
    for index in range(first + 1, len(messages)):
        begins = roles[index] in USER_ROLES and roles[index - 1] not in USER_ROLES
        if begins and any(starts[-1] <= answer < index for answer in answers) and answers[-1] > index:
            starts.append(index)
    return starts


def _role(message: Message) -> str:
    role: Any = role_of(message)
    return role.lower() if isinstance(role, str) else ""


def _merged(some: Batch, others: Batch) -> Batch:
    """Merge the rows of two batches in the order of their numbers."""
    if LOSS_WEIGHTS in {*some.tokens, *others.tokens}:
        some, others = with_weights(some), with_weights(others)
    order = np.argsort(np.concatenate([some.numbers, others.numbers]), kind="stable")
    is_other = order >= len(some)
    rows = [*some.rows, *others.rows]
    tokens = {name: ragged_where(is_other, others.tokens[name], some.tokens[name]) for name in some.tokens}
    return Batch(
        [rows[index] for index in order.tolist()], np.sort(np.concatenate([some.numbers, others.numbers])), tokens
    )
