"""The row log: counts of rows read, dropped and quarantined, and the dropped and quarantined rows themselves."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import numpy as np

from sftkit.core.accounting.cuts import Cuts, LongRows, RowCut
from sftkit.core.accounting.file_log import FileLog
from sftkit.core.accounting.inference_counts import InferenceCounts
from sftkit.core.accounting.removed_row import RemovedRow, removed_row
from sftkit.core.accounting.row_notes import RowNotes
from sftkit.core.accounting.unused_columns import count_column
from sftkit.core.rows import Mask, Offsets

LONE_SURROGATE = "text with a lone surrogate, which UTF-8 cannot encode"
"""Why a row is quarantined whose text holds one half of a surrogate pair."""

UNREADABLE, UNUSABLE = "unread", "unusable"
"""Kinds of quarantined rows: those the source reader rejects, and those a later step rejects."""

_UNREADABLE_BUFFERED = 200
_MOST_KEYS, _OTHER_KEYS = 1000, "other keys"


class RowError(Exception):
    """A row is unusable. The pipeline quarantines the row with the message as its reason."""


class RowDroppedError(Exception):
    """A rule of the config drops a row. The pipeline counts the row under the message."""

    def __init__(self, reason: str, details: str = "") -> None:
        """Say why.

        Args:
            reason: under which the row is counted.
            details: what is added to it in the list of dropped rows.
        """
        super().__init__(reason)
        self.details = details


class EngineDifferenceError(Exception):
    """A fast engine and the reference engine disagree on a row. The run falls back to the reference engine."""

    def __init__(self, engine: str, sample: str, index: int | None = None, place: str = "") -> None:
        """Describe the difference.

        Args:
            engine: `encoder` or `renderer`.
            sample: the input, truncated.
            index: index of the text within the call, None for a call with a single text.
            place: `path:row`, once known.
        """
        super().__init__(engine, sample, index, place)
        self.engine, self.sample, self.index, self.place = engine, sample, index, place

    def at(self, place: str) -> EngineDifferenceError:
        """Return the same error with `place` set."""
        return EngineDifferenceError(self.engine, self.sample, None, place)


def require_valid_text(text: str) -> str:
    r"""Return the text if UTF-8 can encode it; tokenizers accept nothing else.

    Raises:
        RowError: The text holds a lone surrogate.

    Example:
        >>> require_valid_text("naïve")
        'naïve'
        >>> require_valid_text("\ud83d")
        Traceback (most recent call last):
        sftkit.core.row_log.RowError: text with a lone surrogate, which UTF-8 cannot encode
    """
    if not text.isascii():  # which is known without a look at the characters
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RowError(LONE_SURROGATE) from None
    return text


@dataclass
class RowLog:
    """Row accounting of one work unit: rows read, dropped, quarantined and flagged.

    Example:
        >>> log = RowLog(handler="skip_large_text")
        >>> log.drop("too long", [1, 2], [{"text": "b"}, {"text": "c"}])
        >>> log.quarantine(3, "no messages", {"text": "a"})
        >>> log.dropped, log.bad
        (Counter({'too long': 2}), [RemovedRow(number=3, reason='no messages', content='{"text": "a"}')])
    """

    read: int = 0
    """Rows read, including quarantined ones."""
    source_bytes: int = 0
    """Bytes of source that were read, as far as they are known (`Batch.source_bytes`)."""
    added: int = 0
    """Rows that rows were split into, beyond the first of each; all have the number of the row that was read."""
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of dropped rows by (handler, reason)."""
    bad: list[RemovedRow] = field(default_factory=list)
    """Quarantined rows that were not yet passed to `on_bad_rows`."""
    quarantined: int = 0
    """Number of all quarantined rows."""
    flagged: dict[str, set[int]] = field(default_factory=dict)
    """Row numbers by audit rule. May include rows that were dropped or quarantined later."""
    cuts: Cuts = field(default_factory=Cuts)
    """What was cut off rows before the last `flush`."""
    cut_rows: dict[int, RowCut] = field(default_factory=dict)
    """What was cut off rows since then, by their number."""
    not_rendered: Counter[str] = field(default_factory=Counter)
    """Number of rows by keys that the chat template did not render (`RowNotes`). May include rows that were dropped or
    quarantined later."""
    unused_columns: Counter[str] = field(default_factory=Counter)
    """Number of rows in which a column is filled, for columns that are not used."""
    inference: InferenceCounts = field(default_factory=InferenceCounts)
    """How rows of conversations compare with inference. May include rows that were dropped or quarantined later."""
    kind: str = UNUSABLE
    """Kind of the rows this log quarantines: UNREADABLE or UNUSABLE."""
    handler: str = ""
    """Name of the handler that is processing rows."""
    too_long: Counter[str] = field(default_factory=Counter)
    """Rows that were dropped or quarantined for their length, by length as `length_histogram` counts it."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Files besides the source that decided rows, and their sha256: those that user functions read while they ran."""
    files: list[FileLog] = field(default_factory=list)
    """The files read so far, for a work unit that has several, whose rows are numbered consecutively."""
    dropped_rows: list[RemovedRow] = field(default_factory=list)
    """Dropped rows that were not yet passed to `on_dropped_rows`."""
    on_dropped_rows: Callable[[Sequence[RemovedRow]], None] | None = None
    """Called with dropped rows, in order of their numbers, some at a time. Without it, they are only counted."""
    on_bad_rows: Callable[[str, Sequence[RemovedRow]], None] | None = None
    """Called with a kind and quarantined rows of that kind, in order of their numbers, some at a time. Without it, all
    quarantined rows stay in `bad`."""

    @property
    def dropped(self) -> Counter[str]:
        """Number of dropped rows by reason."""
        dropped: Counter[str] = Counter()
        for (_, reason), count in self.drops.items():
            dropped[reason] += count
        return dropped

    def drop(
        self,
        reason: str,
        numbers: Sequence[int] | Offsets,
        rows: Sequence[object] = (),
        details: Sequence[str] = (),
    ) -> None:
        """Count rows that a rule of the config drops, given by their numbers, and list them with what they hold.

        Args:
            reason: under which the rows are counted.
            numbers: of the rows.
            rows: what they hold.
            details: what is added to the reason of each row in the list.
        """
        if len(numbers):
            self.drops[self.handler, reason] += len(numbers)
        if self.on_dropped_rows is not None:
            self.dropped_rows += [
                removed_row(int(number), f"{reason}{detail}", row)
                for number, row, detail in zip_longest(numbers, rows, details, fillvalue="")
            ]
        if self.files:
            for number in numbers:
                self._file_of(number).drops[self.handler, reason] += 1

    def count_unused_column(self, name: str, numbers: Sequence[int]) -> None:
        """Count rows, given by their numbers, in which a column is filled that is not used."""
        count_column(self.unused_columns, name, len(numbers))
        for number in numbers if self.files else ():
            count_column(self._file_of(number).unused_columns, name)

    def flag(self, rule: str, number: int) -> None:
        """Report a row under an audit rule that only the tokenizing step can check."""
        self.flagged.setdefault(rule, set()).add(number)

    def flag_rows(self, rule: str, numbers: Iterable[int], flagged: Iterable[object]) -> None:
        """Report those of some rows for which `flagged` is true."""
        for number, is_flagged in zip(numbers, flagged, strict=True):
            if is_flagged:
                self.flag(rule, int(number))

    def take_back(self, number: int, notes: RowNotes) -> None:
        """Take back what was noted about a row, which is tokenized again."""
        for rule in notes.rules:
            self.flagged.get(rule, set()).discard(number)
        for counts in (self.not_rendered, *([self._file_of(number).not_rendered] if self.files else [])):
            counts.subtract({key if key in counts else _OTHER_KEYS for key in notes.not_rendered})
            for key in [key for key, count in counts.items() if count <= 0]:
                del counts[key]

    def add_rows(self, number: int, count: int) -> None:
        """Count rows that a row was split into, beyond the first."""
        self.added += count
        if self.files and count:
            self._file_of(number).added += count

    def cut(self, numbers: Offsets, long: LongRows, reason: str) -> None:
        """Record what is cut off the long ones of some rows, given by their numbers.

        Rows that have no trained token left will be dropped for the reason.
        """
        counts = zip(long.tokens.tolist(), long.trained_tokens.tolist(), long.loses_answer.tolist(), strict=True)
        for number, (tokens, trained, loses_answer) in zip(numbers[long.rows].tolist(), counts, strict=True):
            cut, earlier = RowCut(tokens, trained, loses_answer, reason), self.cut_rows.get(number)
            self.cut_rows[number] = cut if earlier is None else earlier.then(cut)

    def forget_cuts(self, numbers: Offsets) -> None:
        """Discard what was cut off rows that are tokenized again from their whole text."""
        if self.cut_rows:
            for number in numbers.tolist():
                self.cut_rows.pop(number, None)

    def count_cuts_as_trained(self, numbers: Offsets) -> None:
        """Count all tokens that were cut off some rows as trained ones, because the rest of the row is trained."""
        for number in numbers.tolist() if self.cut_rows else ():
            if number in self.cut_rows:
                cut = self.cut_rows[number]
                self.cut_rows[number] = replace(cut, trained_tokens=cut.tokens)

    def was_cut(self, numbers: Offsets) -> tuple[Mask, Mask]:
        """Return which rows of the current batch were cut, and which of them lost a whole answer."""
        if not self.cut_rows:
            return np.zeros(len(numbers), np.bool_), np.zeros(len(numbers), np.bool_)
        cuts = [self.cut_rows.get(number) for number in numbers.tolist()]
        is_cut = np.array([cut is not None for cut in cuts], np.bool_)
        return is_cut, np.array([cut is not None and cut.loses_answer for cut in cuts], np.bool_)

    def note(self, number: int, notes: RowNotes) -> None:
        """Flag a row under the rules that it breaks, and count it under the keys that were not rendered."""
        for rule in notes.rules:
            self.flag(rule, number)
        if notes.not_rendered:
            _count_keys(self.not_rendered, notes.not_rendered)
            if self.files:
                _count_keys(self._file_of(number).not_rendered, notes.not_rendered)

    def quarantine(self, number: int, reason: str, content: object) -> None:
        """Quarantine a row. Reason and content are truncated, and the reason is put on one line."""
        self.bad.append(removed_row(number, reason, content))
        self.quarantined += 1
        if self.files:
            self._file_of(number).bad.append(self.bad[-1].reason)
        if self.kind == UNREADABLE and len(self.bad) >= _UNREADABLE_BUFFERED:
            self.flush()  # a reader may reject any number of rows between two batches

    def for_unreadable(self) -> RowLog:
        """Return a log for the reader of the same source; pass it to `merge` afterwards."""
        return RowLog(kind=UNREADABLE, on_bad_rows=self.on_bad_rows, files=self.files)

    def merge(self, unreadable: RowLog) -> None:
        """Add the rows that the source reader quarantined."""
        self.read += unreadable.quarantined
        self.quarantined += unreadable.quarantined
        unreadable.flush()
        self.bad = sorted([*self.bad, *unreadable.bad], key=_number)
        self.flush()

    def flush(self) -> None:
        """Add up what was cut off rows, and pass on the dropped and the quarantined rows.

        Rows that are cut, dropped or quarantined later must have higher numbers.
        """
        for number, cut in self.cut_rows.items():
            counts = Cuts(1, cut.tokens, cut.trained_tokens, int(cut.loses_answer))
            self.cuts += counts
            if self.files:
                self._file_of(number).cuts += counts
        self.cut_rows.clear()
        if self.on_dropped_rows is not None and self.dropped_rows:
            self.on_dropped_rows(sorted(self.dropped_rows, key=_number))
            self.dropped_rows = []
        if self.on_bad_rows is not None and self.bad:
            self.on_bad_rows(self.kind, sorted(self.bad, key=_number))
            self.bad = []

    def _file_of(self, number: int) -> FileLog:
        return self.files[bisect_left(self.files, number, key=lambda file: file.rows_before) - 1]


def _count_keys(counts: Counter[str], keys: Sequence[str]) -> None:
    """Count keys; of many different ones, those that come late together."""
    counts.update({key if key in counts or len(counts) < _MOST_KEYS else _OTHER_KEYS for key in keys})


def _number(row: RemovedRow) -> int:
    return row.number
