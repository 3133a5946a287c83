"""Files with one JSON array of objects, decoded element by element so that memory does not grow with the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.sources.formats.json_array_scanner import scan_elements
from sftkit.sources.formats.jsonl import parse_row
from sftkit.sources.source_file import Range, ScanResult, SourceFile
from sftkit.sources.source_format import SourceFormat, group_into_batches
from sftkit.sources.streams.byte_streams import source_sha256, stored_position
from sftkit.sources.streams.decompression import DamagedDataError
from sftkit.sources.streams.text_streams import open_utf8


class JsonArray(SourceFormat):
    """The whole file is one range, because finding an element requires scanning those before it."""

    registered_as = "json_array"

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Hash the file, which is one range."""
        return ScanResult(source_sha256(file), (Range(0, file.size, 1, file.size),))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Yield the elements in order; the row number is the index in the array, counted from 1."""
        with open_utf8(file) as stream:
            yield from group_into_batches(_objects(stream, file, log), stored_position(stream))


def _objects(stream: IO[bytes], file: SourceFile, log: RowLog) -> Iterator[tuple[int, Row, int]]:
    last = 0
    try:
        for element in scan_elements(stream, file.path, file.limits.row_bytes, file.reader.json_field):
            last = element.number
            if not element.is_complete:
                size = f"at least {file.limits.row_bytes + 1:,} bytes"
                log.quarantine(element.number, file.limits.too_long_reason(size), element.data.decode(errors="replace"))
                continue
            row = element.row if element.row is not None else parse_row(element.data, element.number, log)
            if row is not None:
                yield element.number, row, len(element.data)
    except DamagedDataError as error:
        log.quarantine(last + 1, error.reason, "")
