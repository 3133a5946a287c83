"""JSON Lines: one object a line. Uncompressed files are cut at line ends into byte ranges."""

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
from sftkit.sources.byte_streams import bounded_line_reader, hashed_chunks, open_bytes, open_raw, source_sha256
from sftkit.sources.source_file import Range, ReadLimits, ScanResult, SourceFile, group_into_batches

_MOST_NESTED = 800
"""Nesting that both parsers follow. Each gives up soon after, but not at the same depth."""

_decode = msgspec.json.Decoder(float_hook=float).decode


def decode_object(line: bytes) -> Row | None:
    """The JSON object that a line holds, or None where `json.loads` must say what the line is."""
    if len(line) > 2 * _MOST_NESTED and line.count(b"{") + line.count(b"[") > _MOST_NESTED:
        return None
    try:
        row = _decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: what Python makes of bytes and digits
        return None
    return row if type(row) is dict else None


_CHUNK = 1 << 20
_SHOWN_BYTES = 2000  # of a line that is too long
_LONG = 4 << 20
_MEMORY, _MEMORY_PER_BYTE = 1 << 30, 16  # for the values of a long row, which may be some 30 bytes for each of its own
_KINDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
_LINE_END = ord("\n")
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonLines:
    """Ranges are bytes; row numbers are line numbers, blank lines included, so that an editor finds them."""

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """One pass over the bytes: hashes, line ends nearest after every `unit_size` bytes, and lines before each."""
        if file.compression is not None:
            return ScanResult(source_sha256(file), (Range(0, file.size, 1, file.size),))
        digest, part = hashlib.sha256(), hashlib.sha256()
        ranges: list[Range] = []

        def add_range(stop: int) -> None:
            ranges.append(Range(start, stop, first_number, stop - start, sha256=part.hexdigest()))

        start, first_number, position, lines = 0, 1, 0, 0
        with open_raw(file) as stream:
            for chunk in hashed_chunks(stream, digest, _CHUNK):
                searched = 0
                while position + len(chunk) - start >= unit_size:
                    cut = chunk.find(b"\n", max(start + unit_size - position - 1, searched))
                    if cut < 0:
                        break
                    piece, searched = chunk[searched : cut + 1], cut + 1
                    part.update(piece)
                    lines += _line_ends(piece)
                    add_range(position + searched)
                    start, first_number, part = position + searched, lines + 1, hashlib.sha256()
                part.update(chunk[searched:])
                lines += _line_ends(chunk[searched:])
                position += len(chunk)
        if position > start:
            add_range(position)
        return ScanResult(digest.hexdigest(), tuple(ranges))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Parse the lines that begin inside the range."""
        with open_bytes(file) as stream:
            if file.compression is None and part.start:
                stream.seek(part.start)
            length = None if file.compression else part.stop - part.start
            yield from group_into_batches(_rows(stream, length, part.first_number, file.limits, log))


def _line_ends(data: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LINE_END))  # three times as fast as bytes.count


def _rows(
    stream: IO[bytes], length: int | None, first_number: int, limits: ReadLimits, log: RowLog
) -> Iterator[tuple[int, Row, int]]:
    taken = 0
    usual = min(_LONG, limits.row_bytes)
    bounded = bounded_line_reader(stream, limits.row_bytes + 1)
    for number, line in enumerate(iter(bounded, b""), first_number):
        taken += len(line)
        row = decode_object(line) if len(line) <= usual else None
        if row is None and len(line) > limits.row_bytes:
            rest = 0 if line.endswith(b"\n") else _skipped_line(bounded)
            taken += rest
            start = line[:_SHOWN_BYTES].decode("utf-8", errors="replace")
            log.quarantine(number, limits.too_long_reason(f"{len(line) + rest:,} bytes"), start)
        elif row is None:
            row = _parsed(line, number, log)
        if row is not None:
            yield number, row, len(line)
        if length is not None and taken >= length:
            return


def _parsed(line: bytes, number: int, log: RowLog) -> Row | None:
    """A line that is long, or not known to be an object yet, as a row; None where it is none."""
    text = line.removeprefix(_BOM) if number == 1 else line
    if not text or text.isspace():
        return None
    try:
        return run_with_memory_limit(
            _MEMORY + _MEMORY_PER_BYTE * len(line), lambda: decode_object(line) or parse_row(text, number, log)
        )
    except MemoryError:
        log.quarantine(number, "the row becomes more values than memory is allowed for it", "")
    return None


def _skipped_line(bounded: Callable[[], bytes]) -> int:
    """Read to the end of a line, holding a part of it at a time; how many bytes that were."""
    skipped = 0
    while piece := bounded():
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def parse_row(text: bytes, number: int, log: RowLog) -> Row | None:
    """One line as a row; what is not a JSON object is logged with its reason and gives None."""
    try:
        decoded = text.decode("utf-8-sig").rstrip("\r\n")  # else an error at the end is told as of another line
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
    """Whether a value, decoded from this JSON text, holds half a surrogate pair ("\\ud83d" alone): not a character."""
    if not _SURROGATE.search(text):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
