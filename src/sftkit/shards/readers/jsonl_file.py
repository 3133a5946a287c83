"""JSON Lines: an object with the columns of a row in each line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa

from sftkit.core.error_text import first_line
from sftkit.errors import SourceError
from sftkit.shards.readers.row_file import RowFile
from sftkit.shards.readers.value_arrays import array_of_any, list_of_integers
from sftkit.storage.files import file_version
from sftkit.storage.paths import AnyPath
from sftkit.storage.retry import error_reason
from sftkit.storage.streams import open_binary

_GROUP_BYTES = 4 << 20
_MOST_LINE_BYTES = 256 << 20


@dataclass(frozen=True)
class _Lines:
    """Where the groups of lines of a file begin."""

    begins: tuple[int, ...]
    """The first byte of each group, and the size of the file."""
    numbers: tuple[int, ...]
    """The number of the first line of each group, from 1."""
    rows: tuple[int, ...]
    """Lines of each group that are not blank."""


class JsonLinesRowFile(RowFile):
    """A file of JSON Lines; a group has a few megabytes. Its columns are those of the first group."""

    kind = "JSON Lines"

    def __init__(self, path: AnyPath) -> None:
        """Open a file, and find where its lines begin (once for each version of it).

        Raises:
            SourceError: it cannot be read, or the first lines are no JSON objects.
        """
        self.path = path
        try:
            self._lines = _find_lines(path, file_version(path))
            self._file = open_binary(path)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error_reason(error)}") from None
        self._integers: frozenset[str] = frozenset()
        first = self._rows(0) if self._lines.rows else []
        names = list(dict.fromkeys(name for row in first for name in row))
        self._integers = frozenset(name for name in names if _holds_integers([row.get(name) for row in first]))
        super().__init__(path, self._table(first, names).schema, self._lines.rows)

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        return self._table(self._rows(number), columns)

    def _table(self, rows: Sequence[dict[str, Any]], columns: list[str]) -> pa.Table:
        return pa.table({name: self._column(name, [row.get(name) for row in rows]) for name in columns})

    def _column(self, name: str, values: list[Any]) -> pa.Array:
        if name not in self._integers:
            return array_of_any(values)
        try:
            return list_of_integers(values)
        except (ValueError, OverflowError) as error:
            reason = first_line(error)
            raise SourceError(f"{self.path}: column {name!r} must hold lists of integers: {reason}") from None

    def _rows(self, number: int) -> list[dict[str, Any]]:
        begin, end = self._lines.begins[number : number + 2]
        self._file.seek(begin)
        lines = self._file.read(end - begin).split(b"\n")
        rows = []
        for line, text in enumerate(lines, self._lines.numbers[number]):
            if not text.strip():
                continue
            try:
                row = msgspec.json.decode(text)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{self.path}:{line}: is no JSON: {first_line(error)}") from None
            if type(row) is not dict:
                raise SourceError(f"{self.path}:{line}: is no JSON object")
            rows.append(row)
        if len(rows) != self._lines.rows[number]:
            raise OSError("it changed while it was read")
        return rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _holds_integers(values: list[Any]) -> bool:
    """Return whether values are lists of integers, or missing."""
    lists = [value for value in values if value is not None]
    known = [value for value in lists if value]
    return bool(lists) and all(type(value) is list for value in lists) and bool(known) and _are_integers(known[0])


def _are_integers(values: list[Any]) -> bool:
    return all(type(value) in (int, bool) for value in values)


@lru_cache(maxsize=1024)
def _find_lines(path: AnyPath, version: tuple[int, int | str]) -> _Lines:
    """Divide a file into groups of lines of a few megabytes."""
    begins, numbers, rows = [0], [], []
    number = 1
    with open_binary(path) as file:
        while block := file.read(_GROUP_BYTES):
            block += file.readline(_MOST_LINE_BYTES)
            if len(block) >= _MOST_LINE_BYTES and not block.endswith(b"\n"):
                raise SourceError(f"{path}: has a line of more than {_MOST_LINE_BYTES >> 20} MiB")
            lines = block.split(b"\n")
            numbers.append(number)
            rows.append(sum(1 for line in lines if line.strip()))
            number += len(lines) - 1
            begins.append(begins[-1] + len(block))
    return _Lines(tuple(begins), tuple(numbers), tuple(rows))
