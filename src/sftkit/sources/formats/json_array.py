"""A JSON array of objects, decoded element by element so that memory does not grow with the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.sources.byte_streams import open_bytes, source_sha256
from sftkit.sources.formats.json_array_scanner import scan_elements
from sftkit.sources.formats.jsonl import parse_row
from sftkit.sources.source_file import Range, ScanResult, SourceFile, group_into_batches


class JsonArray:
    """One range, the whole file: where an element begins is known only after those before it."""

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Hash the file; it is one range."""
        return ScanResult(source_sha256(file), (Range(0, file.size, 1, file.size),))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """The elements in order; the row number is the element's place in the array, from 1."""
        with open_bytes(file) as stream:
            yield from group_into_batches(_objects(stream, file, log))


def _objects(stream: IO[bytes], file: SourceFile, log: RowLog) -> Iterator[tuple[int, Row, int]]:
    for element in scan_elements(stream, file.path, file.limits.row_bytes):
        if not element.is_whole:
            size = f"at least {file.limits.row_bytes + 1:,} bytes"
            log.quarantine(element.number, file.limits.too_long_reason(size), element.data.decode(errors="replace"))
            continue
        row = element.row if element.row is not None else parse_row(element.data, element.number, log)
        if row is not None:
            yield element.number, row, len(element.data)
