"""JSON Lines: one object a line. Uncompressed files are cut at line ends into byte ranges."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import IO

import numpy as np

from sftkit.rows import HALF_PAIR, Batch, Row, RowLog
from sftkit.sources.batching import in_batches
from sftkit.sources.model import Range, Scan, SourceFile
from sftkit.sources.opening import hashed_chunks, open_bytes, open_raw, sha256_of
from sftkit.sources.quick_json import quick_object

_CHUNK = 1 << 20
_LINE_END = ord("\n")
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonLines:
    """Ranges are bytes; row numbers are line numbers, blank lines included, so that an editor finds them."""

    def scan(self, file: SourceFile, unit_size: int) -> Scan:
        """One pass over the bytes: hash, line ends nearest after every `unit_size` bytes, and lines before each."""
        if file.compression is not None:
            return Scan(sha256_of(file), (Range(0, file.size, 1, file.size),))
        digest = hashlib.sha256()
        ranges: list[Range] = []
        start, first_number, position, lines = 0, 1, 0, 0
        with open_raw(file) as stream:
            for chunk in hashed_chunks(stream, digest, _CHUNK):
                searched = 0
                while position + len(chunk) - start >= unit_size:
                    cut = chunk.find(b"\n", max(start + unit_size - position - 1, searched))
                    if cut < 0:
                        break
                    lines += _line_ends(chunk[searched : cut + 1])
                    searched = cut + 1
                    ranges.append(Range(start, position + searched, first_number, position + searched - start))
                    start, first_number = position + searched, lines + 1
                lines += _line_ends(chunk[searched:])
                position += len(chunk)
        if position > start:
            ranges.append(Range(start, position, first_number, position - start))
        return Scan(digest.hexdigest(), tuple(ranges))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Parse the lines that begin inside the range."""
        with open_bytes(file) as stream:
            if file.compression is None and part.start:
                stream.seek(part.start)
            length = None if file.compression else part.stop - part.start
            yield from in_batches(_rows(stream, length, part.first_number, log))


def _line_ends(data: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LINE_END))  # three times as fast as bytes.count


def _rows(stream: IO[bytes], length: int | None, first_number: int, log: RowLog) -> Iterator[tuple[int, Row, int]]:
    taken = 0
    for number, line in enumerate(stream, first_number):
        taken += len(line)
        row = quick_object(line)
        if row is None:
            text = line.removeprefix(_BOM) if number == 1 else line
            if text and not text.isspace():
                row = parse_row(text, number, log)
        if row is not None:
            yield number, row, len(line)
        if length is not None and taken >= length:
            return


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
    except ValueError as error:  # a whole number of thousands of digits
        reason = f"broken JSON: {error}"
    else:
        if not isinstance(row, dict):
            reason = f"a row must be a JSON object, not {type(row).__name__}"
        elif holds_half_pairs(row, decoded):
            reason = HALF_PAIR
        else:
            return row
    log.quarantine(number, reason, text.decode("utf-8", errors="replace").rstrip("\r\n"))
    return None


def holds_half_pairs(value: object, text: str) -> bool:
    """Whether a value, decoded from this JSON text, holds half a surrogate pair ("\\ud83d" alone): not a character."""
    if not _SURROGATE.search(text):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
