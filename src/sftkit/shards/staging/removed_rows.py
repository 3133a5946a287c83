"""The quarantined and the dropped rows of a staged unit, each in a file: there may be millions, too many for memory.

The file is Arrow IPC, zstd-compressed. Columns: `kind` (int8, 0 for `UNREADABLE`, 1 for `UNUSABLE`), `number` (int64),
`reason` (large_string) and `content` (large_string, a JSON string, since a content may hold lone surrogates). Each
record batch holds rows of one kind, and the rows of a kind are in the order of their numbers. Dropped rows are
`UNUSABLE`.
"""

from __future__ import annotations

import heapq
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from sftkit.core.accounting.removed_row import RemovedRow
from sftkit.core.row_log import UNREADABLE, UNUSABLE
from sftkit.shards.arrow_arrays import number_array, text_array
from sftkit.storage.files import atomic_replace, sha256_of_file
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_unmapped_arrow_file

OTHER_REASONS = "other reasons"

REMOVED_ROW_COLUMNS = ["kind", "number", "reason", "content"]
"""The columns of the file."""

_KINDS = (UNREADABLE, UNUSABLE)
_MAX_REASONS = 50
_ROWS_PER_BATCH = 200
_LONE_NUMBER = re.compile(r"(?<![\w=.'\"-])\d+(?![\w'\"])")


@dataclass(frozen=True)
class RemovedRowsFile:
    """The quarantined or the dropped rows of a unit, on disk.

    Iterating reads them, a few at a time, in the order of their numbers.
    """

    path: AnyPath
    """The file; it exists when `count > 0`."""
    count: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Rows by generic reason (see `generic_reason`)."""
    number_shift: int = 0
    """Added to the row numbers in the file when they are read."""
    bytes: int = 0
    sha256: str | None = None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[RemovedRow]:
        if self.count:
            yield from heapq.merge(*(self._of_kind(kind) for kind in range(len(_KINDS))), key=lambda row: row.number)

    def _of_kind(self, kind: int) -> Iterator[RemovedRow]:
        with open_unmapped_arrow_file(self.path) as source:
            file = pa.ipc.open_file(source)
            for index in range(file.num_record_batches):
                batch = file.get_batch(index)
                if batch.column("kind")[0].as_py() == kind:
                    columns = (batch.column(name).to_pylist() for name in ("number", "reason", "content"))
                    for number, reason, content in zip(*columns, strict=True):
                        yield RemovedRow(number + self.number_shift, reason, json.loads(content))


def bad_rows_path(rows: AnyPath) -> AnyPath:
    """Return the path of a unit's bad rows, given the path of its rows."""
    return rows.with_name(f"{rows.stem}.bad.account.arrow")


def dropped_rows_path(rows: AnyPath) -> AnyPath:
    """Return the path of a unit's dropped rows, given the path of its rows."""
    return rows.with_name(f"{rows.stem}.dropped.account.arrow")


class RemovedRowsWriter:
    """Writes removed rows as they come. The file appears in `finish`, and only if there were any.

    Args:
        path: where the file will be.
        run: part of its temporary name, different for each run and unit.
    """

    def __init__(self, path: AnyPath, run: str) -> None:
        self._path = path
        self._run = run
        self._open_files = ExitStack()
        self._temporary: Path | None = None
        self._sink: pa.OSFile | None = None
        self._writer: pa.RecordBatchFileWriter | None = None
        self._count = 0
        self._reasons: Counter[str] = Counter()

    def write(self, kind: str, rows: Sequence[RemovedRow]) -> None:
        """Append rows of one kind; their numbers must be higher than those of earlier rows of the same kind."""
        if self._writer is None:
            self._temporary = self._open_files.enter_context(atomic_replace(self._path, self._run))
            self._sink = self._open_files.enter_context(pa.OSFile(os.fsencode(self._temporary), "w"))
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            self._writer = pa.ipc.new_file(self._sink, _record_batch(0, []).schema, options=options)
        for start in range(0, len(rows), _ROWS_PER_BATCH):
            self._writer.write_batch(_record_batch(_KINDS.index(kind), rows[start : start + _ROWS_PER_BATCH]))
        self._count += len(rows)
        for row in rows:
            count_reason(self._reasons, generic_reason(row.reason), 1)

    def finish(self) -> RemovedRowsFile:
        """Complete the file and describe it."""
        if self._writer is None or self._sink is None or self._temporary is None:
            return RemovedRowsFile(self._path)
        self._writer.close()
        self._sink.close()
        size, sha256 = self._temporary.stat().st_size, sha256_of_file(self._temporary)
        self._open_files.close()
        return RemovedRowsFile(self._path, self._count, dict(self._reasons), bytes=size, sha256=sha256)

    def discard(self, error: BaseException) -> None:
        """Remove the unfinished file."""
        self._open_files.__exit__(type(error), error, error.__traceback__)


def generic_reason(reason: str) -> str:
    """Replace the numbers in a reason (positions, ids, lengths), so that equal problems in different rows count as one.

    Example:
        >>> generic_reason("id 7 is outside the vocabulary")
        'id N is outside the vocabulary'
    """
    return _LONE_NUMBER.sub("N", reason)


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Count rows by the generic form of their reasons."""
    counts: Counter[str] = Counter()
    for reason in reasons:
        count_reason(counts, generic_reason(reason), 1)
    return dict(counts)


def count_reason(reasons: Counter[str], reason: str, count: int) -> None:
    """Add rows to the count of their reason, or of `OTHER_REASONS` once there are too many different reasons.

    User functions may raise anything, so the number of different reasons is otherwise unbounded.
    """
    known = reason in reasons or len(reasons) < _MAX_REASONS
    reasons[reason if known else OTHER_REASONS] += count


def _record_batch(kind: int, rows: Sequence[RemovedRow]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "kind": number_array(np.full(len(rows), kind, np.int8)),
            "number": number_array(np.array([row.number for row in rows], np.int64)),
            "reason": text_array([row.reason for row in rows]),
            "content": text_array([json.dumps(row.content) for row in rows]),
        }
    )
