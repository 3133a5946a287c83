"""Compares every row whose conversation the shards retain with the tokens of inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftkit.audit.checks.packs import Packing
from sftkit.audit.findings import EXAMPLES
from sftkit.core.message_fields import LOSS_FLAGS
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.inspection.audit.inference.compare_tokens import FirstDifference, find_difference
from sftkit.inspection.audit.inference.retained_conversations import RetainedRow, read_retained
from sftkit.inspection.audit.inference.turn_tokens import ConversationTurns, TurnTokenizer
from sftkit.inspection.columns.column_layout import ColumnLayout
from sftkit.tokenization.conversations import Conversation, Message, is_assistant

NOT_RETAINED = "the shards do not have its conversation (retain_columns: [messages])"
_UNCERTAIN = (
    "its retained columns do not give its text again: a Parquet file keeps no order of keys and no nulls in objects"
)
_REPLACEMENT = "\ufffd"  # what a part of a character at the end decodes to
_EXCLUDED = (False, 0, "false", "no", "0")


@dataclass
class RowChecks:
    """What became of the rows of a shard."""

    verified: int = 0
    unchecked: Counter[str] = field(default_factory=Counter)
    """Why rows could not be compared -> their number."""
    different: int = 0
    first_different: list[tuple[RetainedRow, FirstDifference]] = field(default_factory=list)
    """At most `EXAMPLES` of those that differ."""


class InferenceChecker:
    """Checks the rows of shards. It is not thread-safe."""

    def __init__(
        self, tokenizer: TurnTokenizer, columns: Sequence[str], stops: Sequence[int], options: Mapping[str, Any]
    ) -> None:
        """Prepare for the shards of a run.

        Args:
            tokenizer: renders and encodes turns.
            columns: the columns that may hold a conversation, the most likely first.
            stops: the stop tokens.
            options: the config of the run: `train_on` says which turns are tried first, `overflow` whether rows may
                lack their start.
        """
        self._tokenizer, self._columns, self._stops = tokenizer, columns, stops
        self._train_on = options.get("train_on")
        self._cuts_starts = options.get("overflow") == "truncate_left"

    def check(self, layout: ColumnLayout, packing: Packing, advance: Callable[[int, int], None]) -> RowChecks:
        """Check the rows of a file.

        Args:
            layout: its columns.
            packing: how rows were packed.
            advance: receives the numbers of rows and of tokens that are done.

        Raises:
            SourceError: the file cannot be read.
        """
        checks = RowChecks()
        columns = [name for name in self._columns if name in layout.names]
        others = [name for name in self._tokenizer.columns if name in layout.names]
        lacks = [name for name in self._tokenizer.columns if name not in layout.names]
        for rows in read_retained(layout, [*columns, *others], packing):
            self._check_rows(rows, columns, lacks, checks)
            advance(len({row.row for row in rows}), sum(len(row.ids) for row in rows))
        return checks

    def _check_rows(
        self, rows: Sequence[RetainedRow], columns: Sequence[str], lacks: Sequence[str], checks: RowChecks
    ) -> None:
        read: list[tuple[RetainedRow, Conversation]] = []
        for row in rows:
            try:
                conversation = self._read(row.columns, columns)
            except RowError as error:
                checks.unchecked[str(error)] += 1
            else:
                read.append((row, conversation))
        first = [_likely_turns(conversation.message_list, self._train_on) for _, conversation in read]
        found = self._encode(read, first)
        open_rows = [index for index, (row, _) in enumerate(read) if self._compare(row, found[index]) is not None]
        again: list[tuple[int, Conversation, list[int]]] = []
        for index in open_rows:
            conversation = read[index][1]
            turns = _turns(conversation.message_list)
            again.append((index, conversation, [turn for turn in turns if turn not in first[index]]))
            skipping = self._tokenizer.skipping_reasoning(conversation)
            if skipping is not None:
                again.append((index, skipping, turns))
        for (index, *_), more in zip(again, self._tokenizer.encode_turns([each[1:] for each in again]), strict=True):
            found[index].turns.extend(more.turns)
            found[index].refused.update(more.refused)
        for (row, conversation), known in zip(read, found, strict=True):
            difference = self._compare(row, known)
            reason = self._why_unchecked(row, conversation, known, lacks) if difference is not None else None
            if difference is None:
                checks.verified += 1
            elif reason is not None:
                checks.unchecked[reason] += 1
            else:
                checks.different += 1
                if len(checks.first_different) < EXAMPLES:
                    checks.first_different.append((row, difference))

    def _read(self, columns: Row, names: Sequence[str]) -> Conversation:
        name = next((name for name in names if columns.get(name)), None)
        if name is None:
            raise RowError(NOT_RETAINED)
        return self._tokenizer.read(columns, name)

    def _encode(
        self, read: Sequence[tuple[RetainedRow, Conversation]], turns: Sequence[Sequence[int]]
    ) -> list[ConversationTurns]:
        return self._tokenizer.encode_turns(
            [
                (conversation, wanted if row.trained.any() else ())
                for (row, conversation), wanted in zip(read, turns, strict=True)
            ]
        )

    def _compare(self, row: RetainedRow, found: ConversationTurns) -> FirstDifference | None:
        return find_difference(
            row.ids, row.trained, found.turns, self._stops, may_lack_start=row.may_lack_start or self._cuts_starts
        )

    def _why_unchecked(
        self, row: RetainedRow, conversation: Conversation, found: ConversationTurns, lacks: Sequence[str]
    ) -> str | None:
        """Return why a difference may be none; None if it is one."""
        if found.refused:
            message, reason = min(found.refused.items())
            return f"message {message}: {reason}"
        if not found.turns:
            return "its conversation has no assistant message"
        if not lacks and not _has_objects(row.columns):
            return None
        try:
            ids = self._tokenizer.encode_whole(conversation)
        except RowError as reason:
            return str(reason)
        whole, mine = self._tokenizer.decode(ids), self._tokenizer.decode(row.ids).rstrip(_REPLACEMENT)
        if whole.startswith(mine) or ((row.may_lack_start or self._cuts_starts) and mine in whole):
            return None
        return f"{_UNCERTAIN}, and they have no {' or '.join(lacks)}" if lacks else _UNCERTAIN


def _turns(messages: Sequence[Message]) -> list[int]:
    return [index for index, message in enumerate(messages) if is_assistant(message)]


def _likely_turns(messages: Sequence[Message], train_on: Any) -> list[int]:
    """Return the turns that are probably trained; if it is others, these are tried, too."""
    turns = [turn for turn in _turns(messages) if not any(messages[turn].get(name) in _EXCLUDED for name in LOSS_FLAGS)]
    if train_on == "last_assistant":
        return turns[-1:]
    return turns[:1] if train_on == "first_assistant" else turns


def _has_objects(columns: Row) -> bool:
    """Return whether retained columns have objects below the messages, whose keys may be in another order."""
    return any(
        isinstance(value, dict) or any(_holds_objects(item) for item in _items(value)) for value in columns.values()
    )


def _items(value: Any) -> Iterator[Any]:
    for item in value if isinstance(value, list) else []:
        yield from item.values() if isinstance(item, dict) else [item]


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_objects, value)))
