"""TODO."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
