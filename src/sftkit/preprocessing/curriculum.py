"""Reads the numbers that `order: curriculum` sorts by from the retained columns of staged rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.errors import DataError
from sftkit.execution.runner import Runner
from sftkit.ordering.splitting import Indices
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.retained_columns import RETAINED
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_arrow_file

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _UnitColumn:
    """A retained column of a staged unit."""

    number: int
    path: AnyPath

    def __str__(self) -> str:
        return str(self.path)


def read_numbers(staged: Sequence[StagedUnit], column: str, runner: Runner) -> Numbers:
    """Return the number in a retained column of each staged row, shape (rows,); NaN where there is none."""
    tasks = [_UnitColumn(unit.number, unit.path) for unit in staged if unit.rows and column in unit.retained.names]
    found = {task.number: numbers for task, numbers in runner.run(partial(_read_column, column), tasks)}
    return np.concatenate([found.get(unit.number, np.full(unit.rows, np.nan)) for unit in staged])


def check_numbers(plan: Plan, staged: Sequence[StagedUnit], column: str, numbers: Numbers, rows: Indices) -> None:
    """Check that each of some staged rows has a number in a column.

    Raises:
        DataError: with the place of the first row that has none.
    """
    missing = np.sort(rows[np.isnan(numbers[rows])])
    if not len(missing):
        return
    ends = np.cumsum([unit.rows for unit in staged])
    at = int(np.searchsorted(ends, missing[0], side="right"))
    unit = staged[at]
    [number] = unit.row_numbers([int(missing[0] - ends[at]) + unit.rows])
    path, row = plan.units[unit.number].locate(number, unit.rows_before)
    count = f"{len(missing):,} rows have" if len(missing) > 1 else "a row has"
    raise DataError(
        f"order=curriculum: {count} no number in the column {column!r}, the first at {path}:{row}; give each row for "
        "training a number there, or set another order"
    )


def _read_column(column: str, task: _UnitColumn) -> Numbers:
    numbers: list[float] = []
    with open_arrow_file(task.path) as source:
        field = pa.ipc.open_file(source).schema.get_field_index(RETAINED)
        file = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=[field]))
        for batch in range(file.num_record_batches):
            texts = file.get_batch(batch).column(0).to_pylist()
            numbers += [_number(json.loads(text).get(column)) for text in texts]
    return np.array(numbers, np.float64)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
