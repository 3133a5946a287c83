"""The quarantined rows of a staged unit, in a file of their own: there may be millions, and nobody holds them all.

Arrow IPC, compressed; contents as JSON text, for they may hold half a surrogate pair. Rows that could not be read and
rows that could not be used come from two hands, each in the order of its numbers: each hand has its record batches.
"""

from __future__ import annotations

import heapq
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.core.row_log import UNREADABLE, UNUSABLE, BadRow
from sftkit.shards.arrow_arrays import number_array, text_array
from sftkit.storage.files import atomic_replace, sha256_of_file
from sftkit.storage.paths import AnyPath, RemotePath
from sftkit.storage.streams import open_arrow_file

OTHER_REASONS = "other reasons"

_KINDS = (UNREADABLE, UNUSABLE)
_MOST_REASONS = 50
_AT_ONCE = 200
_LONE_NUMBER = re.compile(r"(?<![\w=.'\"-])\d+(?![\w'\"])")


@dataclass(frozen=True)
class BadRowsFile:
    """Quarantined rows in a file, in the order of their numbers.

    path: the file, which exists when count > 0. reasons: how many rows there are for each kind of reason. number_shift:
    how much higher their numbers are now than in the file. bytes, sha256: of the file.
    """

    path: AnyPath
    count: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    number_shift: int = 0
    bytes: int = 0
    sha256: str | None = None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[BadRow]:
        """Read them, a few at a time."""
        if self.count:
            yield from heapq.merge(*(self._of_kind(kind) for kind in range(len(_KINDS))), key=lambda row: row.number)

    def _of_kind(self, kind: int) -> Iterator[BadRow]:
        with open_unit_file(self.path) as source:
            file = pa.ipc.open_file(source)
            for place in range(file.num_record_batches):
                batch = file.get_batch(place)
                if batch.column("kind")[0].as_py() == kind:
                    columns = (batch.column(name).to_pylist() for name in ("number", "reason", "content"))
                    for number, reason, content in zip(*columns, strict=True):
                        yield BadRow(number + self.number_shift, reason, json.loads(content))


def open_unit_file(path: AnyPath) -> Any:
    """Not mapped into memory: what is read of it would stay there."""
    return open_arrow_file(path) if isinstance(path, RemotePath) else pa.OSFile(os.fsencode(path))


def bad_rows_path(rows: AnyPath) -> AnyPath:
    """Where the bad rows of a unit stand, beside the file of its rows: a part of its account."""
    return rows.with_name(f"{rows.stem}.bad.account.arrow")


class BadRowsWriter:
    """Writes bad rows as they come; the file is there once it is finished, if there was one.

    run: what sets the name of the unfinished file apart from those of other runs.
    """

    def __init__(self, path: AnyPath, run: str) -> None:
        self._path = path
        self._local: Path | None = None
        self._run = run
        self._aside = ExitStack()
        self._sink: pa.OSFile | None = None
        self._writer: pa.RecordBatchFileWriter | None = None
        self._count = 0
        self._reasons: Counter[str] = Counter()

    def write(self, kind: str, rows: Sequence[BadRow]) -> None:
        """Append rows of a kind; their numbers are higher than those of the same kind before."""
        if self._writer is None:
            self._local = self._aside.enter_context(atomic_replace(self._path, self._run))
            self._sink = self._aside.enter_context(pa.OSFile(os.fsencode(self._local), "w"))
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            self._writer = pa.ipc.new_file(self._sink, _record(0, []).schema, options=options)
        for start in range(0, len(rows), _AT_ONCE):
            self._writer.write_batch(_record(_KINDS.index(kind), rows[start : start + _AT_ONCE]))
        self._count += len(rows)
        for row in rows:
            count_reason(self._reasons, generic_reason(row.reason), 1)

    def finish(self) -> BadRowsFile:
        """What was written, on disk."""
        if self._writer is None or self._sink is None or self._local is None:
            return BadRowsFile(self._path)
        self._writer.close()
        self._sink.close()
        size, sha256 = self._local.stat().st_size, sha256_of_file(self._local)
        self._aside.close()
        return BadRowsFile(self._path, self._count, dict(self._reasons), bytes=size, sha256=sha256)

    def discard(self, error: BaseException) -> None:
        """Leave nothing of it."""
        self._aside.__exit__(type(error), error, error.__traceback__)


def generic_reason(reason: str) -> str:
    """A reason without the numbers that set it apart from the same in another row: places, ids, lengths."""
    return _LONE_NUMBER.sub("N", reason)


def count_reason(reasons: Counter[str], reason: str, count: int) -> None:
    """Count rows under their reason; when there are very many reasons (what functions raise may be anything), under
    `OTHER_REASONS`.
    """
    known = reason in reasons or len(reasons) < _MOST_REASONS
    reasons[reason if known else OTHER_REASONS] += count


def _record(kind: int, rows: Sequence[BadRow]) -> pa.RecordBatch:
    """Rows of one kind as a record batch."""
    return pa.RecordBatch.from_pydict(
        {
            "kind": number_array(np.full(len(rows), kind, np.int8)),
            "number": number_array(np.array([row.number for row in rows], np.int64)),
            "reason": text_array([row.reason for row in rows]),
            "content": text_array([json.dumps(row.content) for row in rows]),
        }
    )
