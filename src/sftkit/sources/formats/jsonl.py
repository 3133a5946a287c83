"""JSON Lines: one object per line. Uncompressed files are divided into byte ranges at line ends."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import IO

import msgspec
import numpy as np

from sftkit.core.row_log import LONE_SURROGATE, RowLog
from sftkit.core.rows import Batch, Row
from sftkit.sandbox.memory import run_with_memory_limit
from sftkit.sources.reader_options import foreign_encoding
from sftkit.sources.source_file import Range, ReadLimits, ScanResult, SourceFile
from sftkit.sources.source_format import SourceFormat, group_into_batches
from sftkit.sources.streams.byte_streams import (
    bounded_line_reader,
    open_bytes,
    open_raw,
    source_sha256,
    stored_position,
)
from sftkit.sources.streams.content_digests import hashed_chunks, verified_range
from sftkit.sources.streams.decompression import DamagedDataError
from sftkit.sources.streams.text_streams import encoding_of_mark, holds_array, open_utf8, read_head

_CHUNK = 1 << 20
_SHOWN_BYTES = 2000  # of a line that is too long
_LONG_LINE = 4 << 20  # bytes from which a line is decoded with a memory limit
_MEMORY, _MEMORY_PER_BYTE = 1 << 30, 16  # bytes of memory for the values of a long line
_MAX_NESTING = 800
"""Nesting that both parsers accept. Each gives up soon after it, but not at the same depth."""

_KINDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
_LINE_END = ord("\n")
_BOM = b"\xef\xbb\xbf"
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_decode = msgspec.json.Decoder(float_hook=float).decode


def decode_object(line: bytes) -> Row | None:
    """Decode a line quickly if it is a JSON object that both parsers read alike; return None for `parse_row` to decide.

    Example:
        >>> decode_object(b'{"a": 1}'), decode_object(b"[1]"), decode_object(b'{"a": NaN}')
        ({'a': 1}, None, None)
    """
    if len(line) > 2 * _MAX_NESTING and line.count(b"{") + line.count(b"[") > _MAX_NESTING:
        return None
    try:
        row = _decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: invalid UTF-8 or too many digits
        return None
    return row if type(row) is dict else None


def parse_row(text: bytes, number: int, log: RowLog) -> Row | None:
    """Parse one line; anything but a JSON object goes to the log with its reason and gives None."""
    try:
        decoded = text.decode("utf-8-sig").rstrip("\r\n")  # otherwise an error at the end would be on line 2
        row = json.loads(decoded)
    except UnicodeDecodeError as error:
        reason = f"invalid UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        reason = f"broken JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        reason = "JSON nested too deep"
    except ValueError:
        reason = "holds a whole number of more than 4,300 digits"
    else:
        if not isinstance(row, dict):
            reason = f"a row must be a JSON object, not {_KINDS.get(type(row), 'a number')}"
        elif contains_lone_surrogate(row, decoded):
            reason = LONE_SURROGATE
        else:
            return row
    log.quarantine(number, reason, text.decode("utf-8", errors="replace").rstrip("\r\n"))
    return None


def contains_lone_surrogate(value: object, text: str) -> bool:
    r"""Whether a value contains a lone surrogate (a single `\ud83d`).

    Args:
        value: The decoded value.
        text: The JSON text it was decoded from.
    """
    if not _ESCAPED_SURROGATE.search(text):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


class JsonLines(SourceFormat):
    """Ranges are bytes. Row numbers are line numbers, including blank lines, as in a text editor."""

    registered_as = "jsonl"
    extensions = (".jsonl", ".ndjson")

    def verifies_ranges(self, file: SourceFile) -> bool:
        """Whether the file is divided into ranges of bytes."""
        return file.compression is None and foreign_encoding(file.reader) is None

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Hash the file and its ranges, which end at the first line end after `unit_size` bytes, in one pass."""
        if file.compression is not None or foreign_encoding(file.reader) is not None:
            return _as_one_range(file)
        digest, range_digest = hashlib.sha256(), hashlib.sha256()
        ranges: list[Range] = []

        def add_range(stop: int) -> None:
            ranges.append(Range(start, stop, first_number, stop - start, sha256=range_digest.hexdigest()))

        start, first_number, position, lines = 0, 1, 0, 0
        with open_raw(file) as stream:
            for chunk in hashed_chunks(stream, digest, _CHUNK):
                if not position and (encoding_of_mark(chunk) or holds_array(chunk, len(chunk) == file.size)):
                    return _as_one_range(file)
                searched = 0
                while position + len(chunk) - start >= unit_size:
                    line_end = chunk.find(b"\n", max(start + unit_size - position - 1, searched))
                    if line_end < 0:
                        break
                    piece, searched = chunk[searched : line_end + 1], line_end + 1
                    range_digest.update(piece)
                    lines += _count_line_ends(piece)
                    add_range(position + searched)
                    start, first_number, range_digest = position + searched, lines + 1, hashlib.sha256()
                range_digest.update(chunk[searched:])
                lines += _count_line_ends(chunk[searched:])
                position += len(chunk)
        if position > start:
            add_range(position)
        return ScanResult(digest.hexdigest(), tuple(ranges))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Yield the rows of the lines that start in the range."""
        if part.sha256 is None:
            with open_utf8(file) as stream:
                rows = _rows(stream, part.first_number, file.limits, log)
                yield from group_into_batches(rows, stored_position(stream))
            return
        with open_bytes(file) as stream:
            if part.start:
                stream.seek(part.start)
            with verified_range(stream, file.name, part.stop - part.start, part.sha256) as lines:
                yield from group_into_batches(_rows(lines, part.first_number, file.limits, log))


def _as_one_range(file: SourceFile) -> ScanResult:
    """Make one range of a file that cannot be divided, and see whether it is an array."""
    kind = "json_array" if holds_array(*read_head(file)) else None
    return ScanResult(source_sha256(file), (Range(0, file.size, 1, file.size),), kind)


def _count_line_ends(data: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LINE_END))  # three times as fast as bytes.count


def _rows(stream: IO[bytes], first_number: int, limits: ReadLimits, log: RowLog) -> Iterator[tuple[int, Row, int]]:
    """Yield row number, row and size of each line."""
    number = first_number - 1
    quick_limit = min(_LONG_LINE, limits.row_bytes)
    next_line = bounded_line_reader(stream, limits.row_bytes + 1)
    try:
        for number, line in enumerate(iter(next_line, b""), first_number):
            row = decode_object(line) if len(line) <= quick_limit else None
            if row is None and len(line) > limits.row_bytes:
                rest = 0 if line.endswith(b"\n") else _skip_line(next_line)
                start = line[:_SHOWN_BYTES].decode("utf-8", errors="replace")
                log.quarantine(number, limits.too_long_reason(f"{len(line) + rest:,} bytes"), start)
            elif row is None:
                row = _parse_line(line, number, log)
            if row is not None:
                yield number, row, len(line)
    except DamagedDataError as error:
        log.quarantine(number + 1, error.reason, "")


def _parse_line(line: bytes, number: int, log: RowLog) -> Row | None:
    """Parse a line that is long, or that `decode_object` did not decode; None if it has no row."""
    text = line.removeprefix(_BOM) if number == 1 else line
    if not text or text.isspace():
        return None
    try:
        return run_with_memory_limit(
            _MEMORY + _MEMORY_PER_BYTE * len(line), lambda: decode_object(line) or parse_row(text, number, log)
        )
    except MemoryError:
        log.quarantine(number, "decoding the row needs more memory than is allowed", "")
    return None


def _skip_line(next_piece: Callable[[], bytes]) -> int:
    """Read to the end of a line without holding it; return the number of bytes."""
    skipped = 0
    while piece := next_piece():
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
