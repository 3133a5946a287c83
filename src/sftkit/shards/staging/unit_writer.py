"""Writes the tokenized rows of one work unit to an Arrow file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from sftkit.core.accounting.removed_row import RemovedRow
from sftkit.core.row_log import UNUSABLE, RowLog
from sftkit.core.rows import IGNORE_INDEX, INPUT_IDS, LABELS, Batch, Mask, Ragged
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.core.weights.weighted_tokens import weighted_rows
from sftkit.errors import DataError
from sftkit.shards.arrow_arrays import list_array, number_array, text_array
from sftkit.shards.retained_columns import RETAINED, encode_retained, infer_schema, unify_schemas
from sftkit.shards.staging.removed_rows import RemovedRowsWriter, bad_rows_path, count_reasons, dropped_rows_path
from sftkit.shards.staging.staged_unit import (
    ROW_NUMBER,
    STAGED_TEXT,
    FileCounts,
    Int32Array,
    StagedUnit,
    UnitAudit,
    UnitFile,
    describe_unit_file,
)
from sftkit.storage.files import atomic_replace
from sftkit.storage.paths import AnyPath


class UnitWriter:
    """Writes the rows of one unit, batch by batch, to `path`, and its quarantined and dropped rows to files beside it.

    Use it as a context manager, then call `finish`:

        with UnitWriter(path, run) as writer:
            writer.write(batch, text_column=None)
        unit = writer.finish(number, log, engines, seconds)

    The files are written under temporary names and renamed when they are complete (the rows when the `with` block ends,
    the other two in `finish`). An error in the block leaves no file. The unit can be found by later runs only
    after `UnitStore.commit`, which writes its record.

    Args:
        path: where the file with the rows will be; there is none for a unit without rows.
        run: part of the temporary names, different for each run and unit.
    """

    def __init__(self, path: AnyPath, run: str = "") -> None:
        self.file: UnitFile | None = None
        """The file with the rows once it is complete; None when there are no rows."""
        self._path = path
        self._run = run
        self._open_files = ExitStack()
        self._temporary: Path | None = None
        self._sink: pa.OSFile | None = None
        self._writer: pa.RecordBatchFileWriter | None = None
        self._sizes: list[Int32Array] = []
        self._trained: list[Int32Array] = []
        self._was_cut: list[Mask] = []
        self._lost_answer: list[Mask] = []
        self._token_columns: tuple[str, ...] = ()
        self._has_weights = False
        self._text_column: str | None = None
        self._retained = pa.schema([])
        self._bad_rows = RemovedRowsWriter(bad_rows_path(path), run)
        self._dropped_rows = RemovedRowsWriter(dropped_rows_path(path), run)

    def __enter__(self) -> UnitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None and self._sink is not None and self._temporary is not None:
                self._writer.close()
                self._sink.close()
                if error is None:
                    self.file = describe_unit_file(self._temporary, self._shard_columns)
        finally:
            self._open_files.__exit__(kind, error, trace)
            if error is not None:
                self._bad_rows.discard(error)
                self._dropped_rows.discard(error)

    def write(self, batch: Batch, text_column: str | None, log: RowLog) -> None:
        """Append tokenized rows.

        Args:
            batch: the rows; Python columns other than the text column are retained columns.
            text_column: the column that is the text, for rows without tokens.
            log: knows which of the rows were cut.

        Raises:
            DataError: the columns differ from those of earlier rows, or hold values that Parquet cannot store.
        """
        names = sorted({name for row in batch.rows for name in row} - {text_column})
        columns: dict[str, pa.Array] = {ROW_NUMBER: number_array(batch.numbers)}
        tokens = tuple(sorted(batch.tokens.keys() - {LOSS_WEIGHTS}))
        for name in tokens:
            columns[name] = list_array(batch.tokens[name])
        if LABELS in batch.tokens:
            columns[LOSS_WEIGHTS] = list_array(self._staged_weights(batch))
        if text_column is not None:
            columns[STAGED_TEXT] = text_array([row[text_column] for row in batch.rows])
        retained = [encode_retained(row, names) for row in batch.rows] if names else ["{}"] * len(batch)
        self._retained = unify_schemas([self._retained, infer_schema(retained, names)])
        columns[RETAINED] = text_array(retained)
        record = pa.RecordBatch.from_pydict(columns)
        if self._writer is None:
            self._token_columns = tokens
            self._text_column = text_column
            self._temporary = self._open_files.enter_context(atomic_replace(self._path, self._run))
            self._sink = self._open_files.enter_context(pa.OSFile(os.fsencode(self._temporary), "w"))
            self._writer = pa.ipc.new_file(self._sink, record.schema)
        elif (tokens, text_column) != (self._token_columns, self._text_column):
            raise DataError("some rows end as tokens and others as text; all rows of a data set must end the same way")
        self._writer.write_batch(record)
        self._count(batch, text_column)
        was_cut, lost_answer = log.was_cut(batch.numbers)
        self._was_cut.append(was_cut)
        self._lost_answer.append(lost_answer)

    def write_bad_rows(self, kind: str, rows: Sequence[RemovedRow]) -> None:
        """Append quarantined rows of one kind (`UNREADABLE` or `UNUSABLE`), in the order of their numbers."""
        self._bad_rows.write(kind, rows)

    def write_dropped_rows(self, rows: Sequence[RemovedRow]) -> None:
        """Append dropped rows, in the order of their numbers."""
        self._dropped_rows.write(UNUSABLE, rows)

    def finish(
        self,
        number: int,
        log: RowLog,
        engines: Mapping[str, str],
        seconds: Mapping[str, float],
        audit: UnitAudit | None = None,
        first_number: int = 1,
        rows_by_programs: int = 0,
    ) -> StagedUnit:
        """Complete the files of quarantined and dropped rows and return the unit. Call it after the `with` block.

        Args:
            number: position of the unit in the plan.
            log: what happened to the rows that were read.
            engines: the engines that encoded and rendered the rows.
            seconds: time spent on each step.
            audit: what the audit found, where rows were checked.
            first_number: number of the unit's first row within its source.
            rows_by_programs: conversations that programs rendered.
        """
        if log.bad:
            self.write_bad_rows(log.kind, log.bad)
        empty, none = [np.zeros(0, np.int32)], [np.zeros(0, np.bool_)]
        return StagedUnit(
            number=number,
            first_number=first_number,
            path=self._path,
            sizes=np.concatenate(self._sizes or empty),
            trained=np.concatenate(self._trained or empty),
            was_cut=np.concatenate(self._was_cut or none),
            lost_answer=np.concatenate(self._lost_answer or none),
            cuts=log.cuts,
            unused_columns=dict(log.unused_columns),
            token_columns=self._all_token_columns,
            text_column=self._text_column,
            retained=self._retained,
            rows_read=log.read,
            rows_added=log.added,
            drops=_by_handler(log.drops),
            bad_rows=self._bad_rows.finish(),
            dropped_rows=self._dropped_rows.finish(),
            engines=engines,
            seconds=seconds,
            rows_by_programs=rows_by_programs,
            inputs=log.inputs,
            inference=log.inference,
            too_long=dict(log.too_long),
            not_rendered=dict(log.not_rendered),
            audit=audit,
            files=tuple(
                FileCounts(
                    rows_before=file.rows_before,
                    read=file.read,
                    drops=_by_handler(file.drops),
                    reasons=count_reasons(file.bad),
                    cuts=file.cuts,
                    unused_columns=dict(file.unused_columns),
                    not_rendered=dict(file.not_rendered),
                    added=file.added,
                )
                for file in log.files
            ),
        )

    @property
    def _shard_columns(self) -> tuple[str, ...]:
        """The columns that shards are made from."""
        text = () if self._text_column is None else (STAGED_TEXT,)
        return (*self._all_token_columns, *text, *((RETAINED,) if len(self._retained) else ()))

    @property
    def _all_token_columns(self) -> tuple[str, ...]:
        """The token columns, with loss weights if there are any."""
        return tuple(sorted((*self._token_columns, *((LOSS_WEIGHTS,) if self._has_weights else ()))))

    def _staged_weights(self, batch: Batch) -> Ragged:
        """Return the loss weights of rows; nothing for rows in which every trained token has the weight 1."""
        labels = batch.tokens[LABELS]
        weights = batch.tokens.get(LOSS_WEIGHTS)
        if weights is None:
            return Ragged.from_lengths(np.zeros(0, np.float32), np.zeros(len(batch), np.int64))
        weighted = weighted_rows(weights, labels)
        self._has_weights |= bool(weighted.any())
        return Ragged.from_lengths(weights.filter(weighted).values, np.where(weighted, weights.lengths, 0))

    def _count(self, batch: Batch, text_column: str | None) -> None:
        if text_column is not None:
            self._sizes.append(np.array([len(row[text_column]) for row in batch.rows], np.int32))
            self._trained.append(np.zeros(len(batch), np.int32))
        else:
            labels = batch.tokens[LABELS]
            self._sizes.append(batch.tokens[INPUT_IDS].lengths.astype(np.int32))
            self._trained.append(labels.count_per_row(labels.values != IGNORE_INDEX).astype(np.int32))


def _by_handler(drops: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (handler, reason), count in drops.items():
        nested.setdefault(handler, {})[reason] = count
    return nested
