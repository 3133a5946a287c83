"""CSV and TSV with a header line. Every value is text: what a column of digits means is for the template to say."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from sftkit.errors import SourceError
from sftkit.rows import Batch, Row, RowLog
from sftkit.sources.batching import in_batches
from sftkit.sources.delimited_records import BoundedRecords, TooLongError
from sftkit.sources.model import Range, Scan, SourceFile
from sftkit.sources.opening import open_bytes, sha256_of

_BYTES = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as `surrogateescape` has them


@dataclass(frozen=True)
class Delimited:
    """One range, the whole file: a quoted field may hold line ends, so no byte offset is safe to start at."""

    delimiter: str

    def scan(self, file: SourceFile, unit_size: int) -> Scan:
        """Hash the file; it is one range."""
        return Scan(sha256_of(file), (Range(0, file.size, 1, file.size),))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """The records after the header; the first of them is row 1."""
        with open_bytes(file) as stream:
            # newline="": a line end inside quotes belongs to the field, whichever it is. What is no UTF-8 becomes half
            # surrogate pairs, by which the record is known.
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
            yield from in_batches(self._rows(text, file, log))

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
                log.quarantine(number, file.limits.too_long(f"{lines.skipped():,} characters"), start)


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
