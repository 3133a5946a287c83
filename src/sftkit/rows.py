"""What flows through the pipeline: rows that are Python objects until they are text, and flat arrays from then on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Row = dict[str, Any]
Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

INPUT_IDS = "input_ids"
LABELS = "labels"
ATTENTION_MASK = "attention_mask"
SEQ_LENGTHS = "seq_lengths"
"""Tokens of each sequence in a pack, in order; they sum to the tokens of the row."""

TOKEN_COLUMNS = (INPUT_IDS, LABELS, ATTENTION_MASK)

IGNORE_INDEX = -100
"""Label of a position that carries no loss (the convention of PyTorch's cross entropy)."""


@dataclass(frozen=True)
class Ragged:
    """Rows of integers of different length: row i is `values[offsets[i]:offsets[i + 1]]`.

    values: int32, shape (total,). offsets: int64, shape (rows + 1,), starting at 0.
    """

    values: Ids
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Ids:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Offsets:
        """Tokens of each row, shape (rows,)."""
        return np.diff(self.offsets)

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int] | Ids]) -> Ragged:
        """Flatten lists or arrays of ids."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        offsets = offsets_of(lengths)
        values = np.empty(int(offsets[-1]), np.int32)
        for row, start in zip(rows, offsets, strict=False):
            values[start : start + len(row)] = row
        return cls(values, offsets)

    @classmethod
    def of_lengths(cls, values: Ids, lengths: Offsets) -> Ragged:
        """Values laid end to end and the length of each row, shape (rows,)."""
        return cls(values, offsets_of(lengths))

    def take(self, keep: Mask) -> Ragged:
        """The rows where `keep` (bool, shape (rows,)) is true, in order."""
        if keep.all():
            return self
        lengths = self.lengths
        return Ragged(self.values[np.repeat(keep, lengths)], offsets_of(lengths[keep]))

    def head(self, limits: Offsets) -> Ragged:
        """The first `limits[i]` values of each row i (all of a shorter row)."""
        lengths = self.lengths
        if (lengths <= limits).all():
            return self
        kept = np.minimum(lengths, limits)
        position = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], lengths)
        return Ragged(self.values[position < np.repeat(kept, lengths)], offsets_of(kept))

    def sums(self, flags: Mask) -> Offsets:
        """How many values of each row are flagged; `flags` is bool, shape (total,)."""
        running = np.concatenate(([0], np.cumsum(flags, dtype=np.int64)))
        return running[self.offsets[1:]] - running[self.offsets[:-1]]


def predicted(labels: Ragged) -> Mask:
    """Which labels carry a loss, shape (total,): nothing comes before the first token of a row to predict it from."""
    trained: Mask = labels.values != IGNORE_INDEX
    trained[labels.offsets[:-1][labels.lengths > 0]] = False
    return trained


def offsets_of(lengths: Offsets) -> Offsets:
    """Lengths of rows -> offsets of a `Ragged`."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def put_together(first: Mask, ones: Ragged, others: Ragged) -> Ragged:
    """Rows of two columns as one: those of `ones` where `first` (bool, shape (rows,)) is true, else of `others`."""
    lengths = np.empty(len(first), np.int64)
    lengths[first], lengths[~first] = ones.lengths, others.lengths
    from_ones = np.repeat(first, lengths)
    values = np.empty(len(from_ones), ones.values.dtype)
    values[from_ones], values[~from_ones] = ones.values, others.values
    return Ragged.of_lengths(values, lengths)


@dataclass(frozen=True)
class Supervised:
    """Ids of some rows and their labels, of the same shape."""

    input_ids: Ragged
    labels: Ragged


@dataclass(frozen=True)
class Batch:
    """Some rows of one source, side by side.

    rows: the columns that are still Python objects, one dict a row.
    numbers: the row number of each within its source (the first is 1), int64, shape (rows,).
    tokens: the token columns, each a `Ragged` of as many rows.
    """

    rows: list[Row]
    numbers: Offsets
    tokens: Mapping[str, Ragged] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, keep: Mask) -> Batch:
        """The rows where `keep` is true, in order."""
        if keep.all():
            return self
        rows = [row for row, kept in zip(self.rows, keep, strict=True) if kept]
        return Batch(rows, self.numbers[keep], {name: column.take(keep) for name, column in self.tokens.items()})

    def slice(self, start: int, stop: int) -> Batch:
        """Rows start to stop, stop left out."""
        places = np.arange(len(self))
        return self.keep((places >= start) & (places < stop))

    def with_rows(self, rows: list[Row]) -> Batch:
        """The same rows with other Python columns."""
        return Batch(rows, self.numbers, self.tokens)

    def with_tokens(self, **columns: Ragged) -> Batch:
        """The same rows with token columns added or replaced."""
        return Batch(self.rows, self.numbers, {**self.tokens, **columns})

    def columns(self) -> list[str]:
        """Names of all columns that at least one row has, token columns last."""
        seen: dict[str, None] = {}
        for row in self.rows:
            seen.update(dict.fromkeys(row))
        return [*seen, *self.tokens]


SPECIAL_TOKEN_IN_CONTENT, PROMPT_MISMATCH = "special_token_in_content", "prompt_mismatch"
"""Rules of the audit that only the one who makes the tokens can see broken (`RowLog.note`)."""

HALF_PAIR = "text with half a surrogate pair, which is no character"


class RowError(Exception):
    """A row cannot be used. Raised inside the pipeline, ends in quarantine; the message is the reason."""


class RowDroppedError(Exception):
    """A rule of the config takes a row out. Raised inside the pipeline, ends in a count; the message is the reason."""


class EngineDifferenceError(Exception):
    """A fast engine made something else of a row than the reference did. Ends in the run being made by the reference.

    engine: `encoder` or `renderer`. sample: what it was given, cut. index: its place among the texts of the call,
    None when there was one only. place: `path:row`, once it is known.
    """

    def __init__(self, engine: str, sample: str, index: int | None = None, place: str = "") -> None:
        super().__init__(engine, sample, index, place)
        self.engine, self.sample, self.index, self.place = engine, sample, index, place

    def at(self, place: str) -> EngineDifferenceError:
        """The same difference with its place known."""
        return EngineDifferenceError(self.engine, self.sample, None, place)


def checked_text(text: str) -> str:
    """The text itself, when all of it is characters (tokenizers take nothing else).

    Raises:
        RowError: it holds half a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError(HALF_PAIR) from None
    return text


@dataclass(frozen=True)
class BadRow:
    """A row that was quarantined: its number within the source (the first is 1), why, and what it held."""

    number: int
    reason: str
    content: str


MOST_CONTENT, MOST_REASON = 2000, 500
"""Characters that are kept of a bad row, and of the reason why it is one."""

UNREAD, UNUSABLE = "unread", "unusable"
"""Bad rows by who finds them: the reader of the source, or those who have the rows after it."""

_HELD = 200


@dataclass
class RowLog:
    """What happened to rows: how many were read, which a rule dropped (counted), which are unusable (kept), which the
    audit is to name.

    drops: by the handler that dropped them and the reason. bad: unusable rows that were not put aside. quarantined: how
    many are unusable, put aside or not. noted: numbers of rows by the name of a rule of the audit; of rows that do not
    pass after all, too. kind: UNREAD or UNUSABLE. handler: who has the rows. put_aside: takes bad rows of a kind out of
    memory, some at a time, in the order of their numbers; without it they stay.
    """

    read: int = 0
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)
    quarantined: int = 0
    noted: dict[str, set[int]] = field(default_factory=dict)
    kind: str = UNUSABLE
    handler: str = ""
    put_aside: Callable[[str, Sequence[BadRow]], None] | None = None

    @property
    def dropped(self) -> Counter[str]:
        """How many rows were dropped for each reason."""
        dropped: Counter[str] = Counter()
        for (_, reason), count in self.drops.items():
            dropped[reason] += count
        return dropped

    def drop(self, reason: str, count: int = 1) -> None:
        """Count rows that a rule of the config takes out."""
        if count:
            self.drops[self.handler, reason] += count

    def note(self, rule: str, number: int) -> None:
        """Have the audit name a row under one of its rules, for what only the one who makes its tokens can see."""
        self.noted.setdefault(rule, set()).add(number)

    def quarantine(self, number: int, reason: str, content: object) -> None:
        """Keep a row that cannot be used, with its reason (on one line) and what it held, both cut short."""
        self.bad.append(BadRow(number, _one_line(reason[:MOST_REASON]), _as_text(content)[:MOST_CONTENT]))
        self.quarantined += 1
        if self.kind == UNREAD and len(self.bad) >= _HELD:
            self.settle()  # any number of them may come between two batches

    def beside(self) -> RowLog:
        """A log for rows of the same source that cannot be read; `join` takes it in."""
        return RowLog(kind=UNREAD, put_aside=self.put_aside)

    def join(self, unread: RowLog) -> None:
        """Count the rows that could not be read, and keep them, among the others."""
        self.read += unread.quarantined
        self.quarantined += unread.quarantined
        unread.settle()
        self.bad = sorted([*self.bad, *unread.bad], key=_number)
        self.settle()

    def settle(self) -> None:
        """Put the bad rows aside. Those that come after must have higher numbers."""
        if self.put_aside is not None and self.bad:
            self.put_aside(self.kind, sorted(self.bad, key=_number))
            self.bad = []


def _number(row: BadRow) -> int:
    return row.number


def _as_text(content: object) -> str:
    if isinstance(content, str):
        return content
    try:
        return json.dumps(content, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):  # what a function of the user's own put into a row
        return f"({type(content).__name__} that JSON cannot hold)"


def _one_line(text: str) -> str:
    """Text without what a terminal would obey, or could not print: reasons quote data."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
