"""What is known about a staged unit: its row counts, and where its rows are on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.accounting.cuts import Cuts, LongRows
from sftkit.core.accounting.inference_counts import InferenceCounts
from sftkit.core.rows import Mask, Offsets
from sftkit.shards.staging.later_removal import LaterRemoval, removed_rows
from sftkit.shards.staging.removed_rows import RemovedRowsFile
from sftkit.shards.staging.row_index import RowIndex, build_row_index
from sftkit.storage.files import sha256_of_file
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_arrow_file

ROW_NUMBER = "sftkit_row_number"
"""Column of a unit's file: the number of each row within its source, from 1."""

STAGED_TEXT = "sftkit_text"
"""Column of a unit's file: the text of rows without tokens, whatever the name of the column in the shards."""

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class UnitAudit:
    """What the audit found in the rows of a unit."""

    rows: int
    """Rows that were checked."""
    violations: Mapping[str, tuple[int, tuple[int, ...]]]
    """By rule: how many rows break it, and the numbers of the first of them within the source."""
    digests: npt.NDArray[np.uint64]
    """A hash of each row's `input_ids`, shape (rows,); equal for equal rows."""


@dataclass(frozen=True)
class FileCounts:
    """What became of the rows of one file, of a unit of several files."""

    rows_before: int
    """Subtract it from the number of a row in the unit to get its number in the file."""
    read: int
    """Rows read, including quarantined ones."""
    drops: Mapping[str, Mapping[str, int]]
    """Dropped rows: handler -> reason -> count."""
    reasons: Mapping[str, int]
    """Quarantined rows by generic reason."""
    cuts: Cuts
    """What was cut off rows before they were staged."""
    unused_columns: Mapping[str, int]
    """Columns that are not used -> rows in which they are filled."""
    not_rendered: Mapping[str, int] = field(default_factory=dict)
    """Rows by keys that the chat template did not render (`core.row_log.RowNotes`)."""
    added: int = 0
    """Rows that rows were split into, beyond the first of each."""

    @property
    def rows(self) -> int:
        """Rows in the file of the unit."""
        dropped = sum(sum(each.values()) for each in self.drops.values())
        return self.read + self.added - dropped - sum(self.reasons.values())


@dataclass(frozen=True)
class StagedUnit:
    """The result of staging one work unit; the rows themselves are on disk."""

    number: int
    """Position of the unit in the plan."""
    path: AnyPath
    """The Arrow file with the rows; it exists when `rows > 0`."""
    sizes: Int32Array
    """Tokens of each row (characters for text), shape (rows,)."""
    trained: Int32Array
    """Trained tokens of each row, shape (rows,)."""
    was_cut: Mask
    """Whether each row was cut before it was staged, shape (rows,)."""
    lost_answer: Mask
    """Whether each row lost a whole answer then, shape (rows,)."""
    token_columns: tuple[str, ...]
    """The token columns; `loss_weights` is among them if a row has any, and its other rows have none in the file."""
    text_column: str | None
    """The text column, for rows without tokens."""
    retained: pa.Schema
    """Names and inferred types of the retained columns."""
    rows_read: int
    """Rows read from the source, including those that did not pass."""
    rows_added: int
    """Rows that rows were split into, beyond the first of each."""
    drops: Mapping[str, Mapping[str, int]]
    """Rows that were dropped before they were staged: handler -> reason -> count."""
    bad_rows: RemovedRowsFile
    """The rows that were quarantined before."""
    dropped_rows: RemovedRowsFile
    """The rows that were dropped before."""
    cuts: Cuts
    """What was cut off rows before they were staged."""
    unused_columns: Mapping[str, int]
    """Columns that are not used -> rows in which they are filled."""
    engines: Mapping[str, str]
    """The engines that encoded and rendered the rows."""
    seconds: Mapping[str, float]
    """Time spent on each step."""
    rows_by_programs: int = 0
    """Conversations that programs rendered."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Files that user functions read while they ran: path -> sha256."""
    not_rendered: Mapping[str, int] = field(default_factory=dict)
    """Rows by keys that the chat template did not render (`core.row_log.RowNotes`)."""
    inference: InferenceCounts = field(default_factory=InferenceCounts)
    """How rows of conversations compare with inference."""
    too_long: Mapping[str, int] = field(default_factory=dict)
    """Rows that were dropped or quarantined for their length before they were staged, as `length_histogram`. Empty in
    units of earlier versions."""
    audit: UnitAudit | None = None
    """None when the rows were not checked."""
    reused: bool = False
    """Staged by an earlier run, or identical to another unit of this run."""
    later_removals: tuple[LaterRemoval, ...] = ()
    """Rows in the file that are not used: steps after staging have removed them."""
    overflow_cuts: LongRows | None = None
    """The rows that are longer than a pack, if they are cut when they are written. Some may be removed."""
    first_number: int = 1
    """Number of the unit's first row within the source when it was staged."""
    files: tuple[FileCounts, ...] = ()
    """The files of the unit, if it has several."""
    number_shift: int = 0
    """To be added to the row numbers in the files: rows may have been inserted before the unit since it was staged."""

    @property
    def rows_before(self) -> list[int]:
        """`FileCounts.rows_before` of each file, to locate rows; empty if the unit has one file."""
        return [file.rows_before for file in self.files]

    @property
    def rows(self) -> int:
        """Rows in the file."""
        return len(self.sizes)

    @property
    def rows_kept(self) -> int:
        """Rows that can be written to shards."""
        return self.rows - sum(len(each.rows) for each in self.later_removals)

    @property
    def rows_removed_later(self) -> Offsets:
        """Indices of the rows in the file that steps after staging have removed, ascending."""
        return removed_rows(self.later_removals)

    def cuts_of(self, start: int, stop: int, staged: Cuts) -> Cuts:
        """Count what is cut off rows `start` to `stop` of the file in all, given what was cut before they were staged.

        A row that is cut twice counts once.
        """
        if self.overflow_cuts is None:
            return staged
        long = self.overflow_cuts
        here = (long.rows >= start) & (long.rows < stop)
        return staged + Cuts(
            rows=int(np.count_nonzero(here & ~self.was_cut[long.rows])),
            tokens=int(long.tokens[here].sum()),
            trained_tokens=int(long.trained_tokens[here].sum()),
            rows_losing_answers=int(np.count_nonzero(here & long.loses_answer & ~self.lost_answer[long.rows])),
        )

    @property
    def dropped(self) -> int:
        """Number of dropped rows."""
        later = sum(len(each.rows) for each in self.later_removals if not each.is_quarantine)
        return sum(sum(reasons.values()) for reasons in self.drops.values()) + later

    @property
    def quarantined(self) -> int:
        """Number of quarantined rows."""
        return self.bad_rows.count + sum(len(each.rows) for each in self.later_removals if each.is_quarantine)

    def renumbered(self, number: int, first_number: int, *, reused: bool) -> StagedUnit:
        """Return the same rows as unit `number` of a plan, where the first row has the number `first_number`."""
        shift = first_number - self.first_number
        return replace(
            self,
            number=number,
            reused=reused,
            number_shift=shift,
            bad_rows=replace(self.bad_rows, number_shift=shift),
            dropped_rows=replace(self.dropped_rows, number_shift=shift),
        )

    def row_numbers(self, rows: Sequence[int]) -> list[int]:
        """Return the numbers within the source of rows given by their index in the file."""
        with open_arrow_file(self.path) as source:
            file = pa.ipc.open_file(source)
            numbers = [file.get_batch(batch).column(ROW_NUMBER) for batch in range(file.num_record_batches)]
            chosen: list[int] = pa.chunked_array(numbers).take(list(rows)).to_pylist()
        return [number + self.number_shift for number in chosen]


@dataclass(frozen=True)
class UnitFile:
    """A complete file of staged rows."""

    bytes: int
    sha256: str
    index: RowIndex
    """Where in the file each row lies."""


def describe_unit_file(path: Path, columns: Sequence[str]) -> UnitFile:
    """Hash a local file of staged rows, and index the columns that shards are made from."""
    return UnitFile(path.stat().st_size, sha256_of_file(path), build_row_index(path, columns))
