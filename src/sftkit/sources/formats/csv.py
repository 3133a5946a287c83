"""CSV and TSV files with a header line. All values are text."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from typing import ClassVar, TextIO

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.errors import SourceError
from sftkit.sources.source_file import Range, ScanResult, SourceFile
from sftkit.sources.source_format import SourceFormat, group_into_batches
from sftkit.sources.streams.byte_streams import source_sha256, stored_position
from sftkit.sources.streams.decompression import DamagedDataError
from sftkit.sources.streams.text_streams import open_utf8

_CHUNK = 1 << 20
_SHOWN_CHARACTERS = 2000
_INVALID_BYTE = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as decoded by `surrogateescape`


class _DelimitedText(SourceFormat):
    """Text with delimiters. The whole file is one range, because a line end may be part of a quoted field."""

    delimiter: ClassVar[str]

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Hash the file, which is one range."""
        return ScanResult(source_sha256(file), (Range(0, file.size, 1, file.size),))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Yield the records after the header; the first of them is row 1."""
        with open_utf8(file) as stream:
            # newline="" keeps the line ends within quoted fields unchanged.
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
            yield from group_into_batches(self._rows(text, file, log), stored_position(stream))

    def _rows(self, text: TextIO, file: SourceFile, log: RowLog) -> Iterator[tuple[int, Row, int]]:
        csv.field_size_limit(sys.maxsize)  # _RecordLines limits whole records instead
        delimiter = file.reader.delimiter or self.delimiter
        lines = _RecordLines(text, delimiter, file.limits.row_bytes)
        header: list[str] | None = None
        number = 0
        while not lines.is_exhausted:
            # A reader cannot continue after an exception, so there is a new one after each record that is too long.
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            try:
                for record in reader:
                    size = lines.finish_record()
                    if header is None:
                        header = _checked_header(record, file.path)
                    elif record:
                        number += 1
                        if (row := _to_row(record, header, number, log)) is not None:
                            yield number, row, size
            except DamagedDataError as error:
                log.quarantine(number + 1, error.reason, "")
                return
            except csv.Error as error:
                raise SourceError(f"{file.path}:{number + 1}: broken CSV: {error}") from None
            except _RecordTooLongError:
                if header is None:
                    raise SourceError(
                        f"{file.path}: the header is longer than max_row_bytes allows; raise it if this is right"
                    ) from None
                number += 1
                start, size = lines.skip_record()
                log.quarantine(number, file.limits.too_long_reason(f"{size:,} characters"), start)


class Csv(_DelimitedText):
    """Comma-separated values."""

    registered_as = "csv"
    extensions = (".csv",)
    delimiter = ","


class Tsv(_DelimitedText):
    """Tab-separated values."""

    registered_as = "tsv"
    extensions = (".tsv",)
    delimiter = "\t"


class _RecordTooLongError(Exception):
    """The current record is longer than a row may be."""


class _RecordLines:
    """Iterator over lines for `csv.reader` that limits the size of each record.

    `csv.field_size_limit` cannot do that: it limits fields, not records or the lines that are read before parsing, and
    after its error the reader takes the rest of a quoted field for new records. So the end of a record that is too
    long is found here.
    """

    def __init__(self, text: TextIO, delimiter: str, limit: int) -> None:
        self._text, self._limit = text, limit
        self._lines: list[str] = []  # of the current record
        self._size = 0  # characters of the current record
        self._special = re.compile(f'["\r\n{re.escape(delimiter)}]')
        self.is_exhausted = False

    def __iter__(self) -> _RecordLines:
        return self

    def __next__(self) -> str:
        """Return the next line.

        Raises:
            _RecordTooLongError: The record is too long; call `skip_record`.
        """
        line = self._text.readline(self._limit + 1)
        if not line:
            self.is_exhausted = True
            raise StopIteration
        self._lines.append(line)
        self._size += len(line)
        if self._size > self._limit:
            raise _RecordTooLongError
        return line

    def finish_record(self) -> int:
        """Start a new record; return the number of characters of the last one."""
        size, self._size = self._size, 0
        self._lines.clear()
        return size

    def skip_record(self) -> tuple[str, int]:
        """Read to the end of the current record without holding it; return its beginning and its size in characters.

        A line end within a quoted field does not end the record. A quote opens a field only as its first character.
        """
        start = "".join(self._lines)[:_SHOWN_CHARACTERS]
        pieces, self._lines = self._lines, []
        in_quotes, at_field_start = False, True
        while True:
            for piece in pieces:
                in_quotes, at_field_start = self._scan(piece, in_quotes, at_field_start)
            if pieces[-1].endswith(("\n", "\r")) and not in_quotes:
                break
            piece = self._text.readline(_CHUNK)
            self._size += len(piece)
            if not piece:
                self.is_exhausted = True
                break
            pieces = [piece]
        return start, self.finish_record()

    def _scan(self, piece: str, in_quotes: bool, at_field_start: bool) -> tuple[bool, bool]:
        """Return whether the text after a piece is within quotes, and whether it is at the start of a field."""
        position = 0
        for found in self._special.finditer(piece):
            at_field_start = at_field_start and found.start() == position
            position = found.end()
            if found[0] == '"':
                # An escaped quote ("") closes the quotes and opens them again.
                in_quotes, at_field_start = not in_quotes and at_field_start, in_quotes
            elif not in_quotes:
                at_field_start = True
        return in_quotes, at_field_start and position == len(piece)


def _checked_header(header: list[str], path: str) -> list[str]:
    if len(set(header)) < len(header):
        raise SourceError(f"{path}: the header names a column twice; rename one of them: {', '.join(header)}")
    if _INVALID_BYTE.search("".join(header)):
        raise SourceError(f"{path}: invalid UTF-8 in the header; set `encoding` in the `reader` of its data set")
    return header


def _to_row(record: list[str], header: list[str], number: int, log: RowLog) -> Row | None:
    """Convert a record to a row; an invalid one goes to the log and gives None."""
    if len(record) != len(header):
        reason = f"{len(record)} fields where the header has {len(header)}"
    elif any(_INVALID_BYTE.search(field) for field in record if not field.isascii()):
        reason = "invalid UTF-8"
        record = [_INVALID_BYTE.sub("\N{REPLACEMENT CHARACTER}", field) for field in record]
    else:
        return dict(zip(header, record, strict=True))
    log.quarantine(number, reason, record)
    return None
