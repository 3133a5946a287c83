"""CSV and TSV with a header line. Every value is text: what a column of digits means is for the template to say."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.errors import SourceError
from sftkit.sources.byte_streams import open_bytes, source_sha256
from sftkit.sources.source_file import Range, ScanResult, SourceFile, group_into_batches

_PIECE = 1 << 20
_SHOWN = 2000


class TooLongError(Exception):
    """The record that is being read is longer than a row may be."""


class BoundedRecords:
    """Lines for `csv.reader`, an iterator. Whoever reads says after each record that it is taken.

    Raises:
        TooLongError: (while it is iterated) a record has more than `most` characters; `skipped` then goes past it.
    """

    def __init__(self, text: TextIO, delimiter: str, most: int) -> None:
        self._text, self._most = text, most
        self._lines: list[str] = []
        self._size = 0
        self._quoting = re.compile(f'["\r\n{re.escape(delimiter)}]')
        self.are_over = False

    def __iter__(self) -> BoundedRecords:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._most + 1)
        if not line:
            self.are_over = True
            raise StopIteration
        self._lines.append(line)
        self._size += len(line)
        if self._size > self._most:
            raise TooLongError
        return line

    def taken(self) -> int:
        """The record is complete: how many characters it had. Another begins."""
        size, self._size = self._size, 0
        self._lines.clear()
        return size

    def start(self) -> str:
        """How the record begins."""
        return "".join(self._lines)[:_SHOWN]

    def skipped(self) -> int:
        """Go to the end of a record that is too long, holding little of it; how many characters it had.

        Line ends inside of quotes do not end a record. A quote opens a field where it is its first character.
        """
        pieces, self._lines = self._lines, []
        is_quoted, is_first = False, True
        while True:
            for piece in pieces:
                is_quoted, is_first = self._after(piece, is_quoted, is_first)
            if pieces[-1].endswith(("\n", "\r")) and not is_quoted:
                break
            piece = self._text.readline(_PIECE)
            self._size += len(piece)
            if not piece:
                self.are_over = True
                break
            pieces = [piece]
        return self.taken()

    def _after(self, piece: str, is_quoted: bool, is_first: bool) -> tuple[bool, bool]:
        """Whether the text is inside of quotes after a piece, and at the first character of a field."""
        place = 0
        for found in self._quoting.finditer(piece):
            is_first = is_first and found.start() == place
            place = found.end()
            if found[0] == '"':
                # Two in a row stand for one inside of quotes: they close and open again.
                is_quoted, is_first = not is_quoted and is_first, is_quoted
            elif not is_quoted:
                is_first = True
        return is_quoted, is_first and place == len(piece)


_BYTES = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as `surrogateescape` has them


@dataclass(frozen=True)
class Delimited:
    """One range, the whole file: a quoted field may hold line ends, so no byte offset is safe to start at."""

    delimiter: str

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Hash the file; it is one range."""
        return ScanResult(source_sha256(file), (Range(0, file.size, 1, file.size),))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """The records after the header; the first of them is row 1."""
        with open_bytes(file) as stream:
            # newline="": a line end inside quotes belongs to the field, whichever it is. What is no UTF-8 becomes half
            # surrogate pairs, by which the record is known.
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
            yield from group_into_batches(self._rows(text, file, log))

    def _rows(self, text: TextIO, file: SourceFile, log: RowLog) -> Iterator[tuple[int, Row, int]]:
        csv.field_size_limit(sys.maxsize)
        lines = BoundedRecords(text, self.delimiter, file.limits.row_bytes)
        header: list[str] | None = None
        number = 0
        while not lines.are_over:
            reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
            try:
                for record in reader:
                    size = lines.taken()
                    if header is None:
                        header = _checked(record, file.path)
                    elif record:
                        number += 1
                        if (row := _row(record, header, number, log)) is not None:
                            yield number, row, size
            except csv.Error as error:
                raise SourceError(f"{file.path}:{number + 1}: broken CSV: {error}") from None
            except TooLongError:
                if header is None:
                    raise SourceError(f"{file.path}: the header is longer than max_row_bytes allows") from None
                number += 1
                start = lines.start()
                log.quarantine(number, file.limits.too_long_reason(f"{lines.skipped():,} characters"), start)


def _checked(header: list[str], path: str) -> list[str]:
    if len(set(header)) < len(header):
        raise SourceError(f"{path}: the header names a column twice: {', '.join(header)}")
    if _BYTES.search("".join(header)):
        raise SourceError(f"{path}: invalid UTF-8 in the header")
    return header


def _row(record: list[str], header: list[str], number: int, log: RowLog) -> Row | None:
    """A record as a row; None where it is none, which goes to the log."""
    if len(record) != len(header):
        reason = f"{len(record)} fields where the header has {len(header)}"
    elif any(_BYTES.search(field) for field in record if not field.isascii()):
        reason = "invalid UTF-8"
        record = [_BYTES.sub("\N{REPLACEMENT CHARACTER}", field) for field in record]
    else:
        return dict(zip(header, record, strict=True))
    log.quarantine(number, reason, record)
    return None
