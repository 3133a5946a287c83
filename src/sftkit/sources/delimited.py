"""CSV and TSV with a header line. Every value is text: what a column of digits means is for the template to say."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from sftkit.errors import SourceError
from sftkit.rows import Batch, Row, RowLog
from sftkit.sources.batching import in_batches
from sftkit.sources.model import Range, Scan, SourceFile
from sftkit.sources.opening import open_bytes, sha256_of


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
            # newline="": a line end inside quotes belongs to the field, whichever it is
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            yield from in_batches(self._rows(text, file.path, log))

    def _rows(self, text: Iterator[str], path: str, log: RowLog) -> Iterator[tuple[int, Row, int]]:
        csv.field_size_limit(sys.maxsize)
        number = 0
        try:
            reader = csv.reader(text, delimiter=self.delimiter, strict=True)
            header = next(reader, None)
            if header is None:
                return
            if len(set(header)) < len(header):
                raise SourceError(f"{path}: the header names a column twice: {', '.join(header)}")
            for record in reader:
                if not record:
                    continue
                number += 1
                if len(record) != len(header):
                    log.quarantine(number, f"{len(record)} fields where the header has {len(header)}", record)
                    continue
                yield number, dict(zip(header, record, strict=True)), sum(map(len, record))
        except csv.Error as error:
            raise SourceError(f"{path}:{number + 1}: broken CSV: {error}") from None
        except UnicodeDecodeError:
            raise SourceError(f"{path}:{number + 1}: invalid UTF-8 in or after this row") from None
