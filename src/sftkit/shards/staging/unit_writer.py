"""Staged units: the finished rows of one work unit as an Arrow file that later steps copy from, once.

Token columns are lists of int32. Retained columns are kept as JSON text until all units are known, because only then
one type can be given to each.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.row_log import BadRow, RowLog
from sftkit.core.rows import IGNORE_INDEX, INPUT_IDS, LABELS, Batch, Offsets
from sftkit.errors import DataError
from sftkit.shards.arrow_arrays import flat_array, list_array, text_array
from sftkit.shards.staging.bad_rows import BadRows, BadRowsWriter, bad_rows_path
from sftkit.shards.staging.row_index import StagedIndex, index_of
from sftkit.storage.files import replacing, sha256_of_file
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_arrow

NUMBER = "sftkit_row_number"
EXTRAS = "sftkit_extras"

Counts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class UnitAudit:
    """What the audit found in the rows of a unit.

    rows: how many were checked. faulty: by rule, how many rows break it and the numbers of the first of them within
    the source. digests: of each row's ids, uint64, shape (rows,); equal for equal rows.
    """

    rows: int
    faulty: Mapping[str, tuple[int, tuple[int, ...]]]
    digests: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class StagedUnit:
    """What staging one unit gave.

    path: the Arrow file, which exists when rows > 0. sizes: of each row, tokens (characters for text rows), shape
    (rows,). trained: trained tokens of each row, shape (rows,). extras: names and types of the retained columns.
    text_column: for rows that are text. read: rows read, with those that did not pass. drops: how many were dropped, by
    handler and reason. bad: those that were quarantined, on disk. engines: who encoded and rendered them. seconds: what
    took how long. audit: None where rows were not checked. found: an earlier run staged it, or it is the same as
    another unit. unfit: rows of the file that are not used, because they fit no pack. unfit_reasons: where that
    quarantines them, how many, by reason. first_number: of the unit, when it was staged. moved: how much higher the
    numbers of its rows are now.
    """

    number: int
    path: AnyPath
    sizes: Counts
    trained: Counts
    token_columns: tuple[str, ...]
    text_column: str | None
    extras: pa.Schema
    read: int
    drops: Mapping[str, Mapping[str, int]]
    bad: BadRows
    engines: Mapping[str, str]
    seconds: Mapping[str, float]
    audit: UnitAudit | None = None
    found: bool = False
    unfit: Offsets = field(default_factory=lambda: np.zeros(0, np.int64))
    unfit_reasons: Mapping[str, int] = field(default_factory=dict)
    first_number: int = 1
    moved: int = 0

    def standing(self, number: int, first_number: int, *, found: bool) -> StagedUnit:
        """The same rows as those of a unit of a plan, whose first row may have another number than when they were
        staged: rows were added before it, or these are the same in another file.
        """
        moved = first_number - self.first_number
        return replace(self, number=number, found=found, moved=moved, bad=replace(self.bad, moved=moved))

    def numbers(self, rows: Sequence[int]) -> list[int]:
        """Numbers, within their source, of some rows of the file."""
        with open_arrow(self.path) as source:
            file = pa.ipc.open_file(source)
            numbers = [file.get_batch(place).column(NUMBER) for place in range(file.num_record_batches)]
            chosen: list[int] = pa.chunked_array(numbers).take(list(rows)).to_pylist()
        return [number + self.moved for number in chosen]

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return len(self.sizes)

    @property
    def kept(self) -> int:
        """Rows that passed."""
        return self.rows - len(self.unfit)

    @property
    def quarantined(self) -> int:
        """Rows that are quarantined."""
        return self.bad.count + sum(self.unfit_reasons.values())


@dataclass(frozen=True)
class WrittenFile:
    """A file of staged rows: its bytes, their sha256, and where in it the rows lie."""

    bytes: int
    sha256: str
    index: StagedIndex


def written_file(path: Path, columns: Sequence[str]) -> WrittenFile:
    """What there is to say of a local file of staged rows, with the columns that shards are gathered from."""
    return WrittenFile(path.stat().st_size, sha256_of_file(path), index_of(path, columns))


class StagingWriter:
    """Writes the batches of one unit to `path`; the file is there when the `with` block is left without an error.

    run: what sets the name of the unfinished file apart from those of other runs. written: the file, once it is there;
    None where there were no rows.
    """

    def __init__(self, path: AnyPath, run: str = "") -> None:
        self.written: WrittenFile | None = None
        self._path = path
        self._run = run
        self._aside = ExitStack()
        self._local: Path | None = None
        self._sink: pa.OSFile | None = None
        self._writer: pa.RecordBatchFileWriter | None = None
        self._sizes: list[Counts] = []
        self._trained: list[Counts] = []
        self._token_columns: tuple[str, ...] = ()
        self._text_column: str | None = None
        self._extras = pa.schema([])
        self._bad = BadRowsWriter(bad_rows_path(path), run)

    def __enter__(self) -> StagingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None and self._sink is not None and self._local is not None:
                self._writer.close()
                self._sink.close()
                if error is None:
                    self.written = written_file(self._local, self._columns)
        finally:
            self._aside.__exit__(kind, error, trace)
            if error is not None:
                self._bad.abandon(error)

    def write(self, batch: Batch, text_column: str | None) -> None:
        """Append finished rows; `text_column` names the column that is text, for rows without tokens.

        Raises:
            DataError: the columns differ from those of earlier rows, or hold what Parquet cannot.
        """
        names = sorted({name for row in batch.rows for name in row} - {text_column})
        columns: dict[str, pa.Array] = {NUMBER: flat_array(batch.numbers)}
        for name in sorted(batch.tokens):
            columns[name] = list_array(batch.tokens[name])
        if text_column is not None:
            columns[text_column] = text_array([row[text_column] for row in batch.rows])
        extras = [_as_json(row, names) for row in batch.rows] if names else ["{}"] * len(batch)
        self._extras = unified([self._extras, _inferred(extras, names)])
        columns[EXTRAS] = text_array(extras)
        record = pa.RecordBatch.from_pydict(columns)
        if self._writer is None:
            self._token_columns = tuple(sorted(batch.tokens))
            self._text_column = text_column
            self._local = self._aside.enter_context(replacing(self._path, self._run))
            self._sink = self._aside.enter_context(pa.OSFile(os.fsencode(self._local), "w"))
            self._writer = pa.ipc.new_file(self._sink, record.schema)
        elif (tuple(sorted(batch.tokens)), text_column) != (self._token_columns, self._text_column):
            raise DataError("some rows end as tokens and others as text; every row of a data set must end alike")
        self._writer.write_batch(record)
        self._count(batch, text_column)

    def put_aside(self, kind: str, rows: Sequence[BadRow]) -> None:
        """Append bad rows of a kind (as `RowLog.put_aside`)."""
        self._bad.write(kind, rows)

    def staged(
        self,
        number: int,
        log: RowLog,
        engines: Mapping[str, str],
        seconds: Mapping[str, float],
        audit: UnitAudit | None = None,
        first_number: int = 1,
    ) -> StagedUnit:
        """The account of the unit, once the file is closed."""
        if log.bad:
            self.put_aside(log.kind, log.bad)
        empty = [np.zeros(0, np.int32)]
        return StagedUnit(
            number=number,
            first_number=first_number,
            path=self._path,
            sizes=np.concatenate(self._sizes or empty),
            trained=np.concatenate(self._trained or empty),
            token_columns=self._token_columns,
            text_column=self._text_column,
            extras=self._extras,
            read=log.read,
            drops=_by_handler(log.drops),
            bad=self._bad.finish(),
            engines=engines,
            seconds=seconds,
            audit=audit,
        )

    @property
    def _columns(self) -> tuple[str, ...]:
        """Those that shards are gathered from."""
        text = () if self._text_column is None else (self._text_column,)
        return (*self._token_columns, *text, *((EXTRAS,) if len(self._extras) else ()))

    def _count(self, batch: Batch, text_column: str | None) -> None:
        if text_column is not None:
            self._sizes.append(np.array([len(row[text_column]) for row in batch.rows], np.int32))
            self._trained.append(np.zeros(len(batch), np.int32))
        else:
            labels = batch.tokens[LABELS]
            self._sizes.append(batch.tokens[INPUT_IDS].lengths.astype(np.int32))
            self._trained.append(labels.sums(labels.values != IGNORE_INDEX).astype(np.int32))


def _by_handler(drops: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (handler, reason), count in drops.items():
        nested.setdefault(handler, {})[reason] = count
    return nested


_NO_TYPE = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)


def unified(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One schema for retained columns that differ from part to part (null and text, whole and broken numbers).

    Raises:
        DataError: a column holds values that no one type can hold.
    """
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"retain_columns: a column holds values of different kinds: {reason}") from None


class RetainedError(DataError):
    """Values of a retained column have no type together. place: of the first row, in its batch, with which they do."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


def _inferred(texts: Sequence[str], names: Sequence[str]) -> pa.Schema:
    """The types of retained columns, of what is left of them as JSON: a date has become text there.

    Raises:
        RetainedError: values of one column are of different kinds.
    """
    rows = [json.loads(text) for text in texts] if names else []
    fields = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            fields.append(pa.field(name, pa.array(values).type))
        except _NO_TYPE as error:
            reason = str(error).splitlines()[0]
            message = f"retain_columns: column {name!r} holds values of different kinds: {reason}"
            raise RetainedError(message, _first_misfit(values)) from None
    return pa.schema(fields)


def _first_misfit(values: Sequence[Any]) -> int:
    """The place of the first value that has no type together with those before it; there is one."""
    return bisect_left(range(len(values)), True, key=lambda place: not _have_type(values[: place + 1]))


def _have_type(values: Sequence[Any]) -> bool:
    try:
        pa.array(values)
    except _NO_TYPE:
        return False
    return True


def _as_json(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return json.dumps({name: row[name] for name in names if name in row}, ensure_ascii=False, default=str)
