"""Stops a run that has more bad or dropped rows than its config allows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from sftkit.config.commands import PreprocessConfig
from sftkit.core.accounting.removed_row import RemovedRow
from sftkit.errors import DataError
from sftkit.preprocessing.accounting.row_budget import EXCESS_ROWS, RowBudget, budgets_of
from sftkit.preprocessing.accounting.row_counts import RowCounts
from sftkit.preprocessing.accounting.row_lists import DroppedRows, Quarantine
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.manifest import Manifest
from sftkit.shards.output.base_output import Output
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.sources.reading_hints import hint_for_reasons
from sftkit.storage.dataset_files import DROPPED_NAME, QUARANTINE_NAME

_ROWS_IN_MESSAGE = 10


def check_budgets(plan: Plan, staged: Sequence[StagedUnit], output: Output[Any]) -> None:
    """Check that there are not too many bad or dropped rows.

    Raises:
        DataError: there are; the first of them were saved in the output directory.
    """
    counts, is_complete = RowCounts.of(staged), len(staged) == len(plan.units)
    for_bad, for_dropped = budgets_of(plan.config)
    allowed = for_bad.allowed(counts.read)
    if counts.quarantined > allowed:
        bad = Quarantine(plan, staged, int(allowed) + EXCESS_ROWS)
        where = str(output.save_rows(QUARANTINE_NAME, bad))
        raise DataError(_bad_rows_message(bad, counts, for_bad, is_complete=is_complete, where=where))
    allowed = for_dropped.allowed(counts.read)
    if sum(counts.dropped.values()) > allowed:
        dropped = DroppedRows(plan, staged, int(allowed) + EXCESS_ROWS)
        where = str(output.save_rows(DROPPED_NAME, dropped))
        raise DataError(_dropped_rows_message(dropped, counts, for_dropped, is_complete=is_complete, where=where))


def check_finished(config: PreprocessConfig, manifest: Manifest, directory: Output[Any]) -> None:
    """Check that a finished data set has no more bad or dropped rows than a config allows.

    Raises:
        DataError: it has more.
    """
    bad, dropped = budgets_of(config)
    if manifest.quarantined > bad.allowed(manifest.rows_read):
        exceeded = bad.exceeded_by(manifest.rows_read) if bad.limit else ""
        raise DataError(
            f"output_dir {directory.path}: holds this data set, but {manifest.quarantined} rows cannot be used"
            f"{exceeded}; they are in {directory.path / QUARANTINE_NAME}; fix them, or "
            f"set max_bad_rows={manifest.quarantined} to skip them"
        )
    count = sum(manifest.dropped.values())
    if count > dropped.allowed(manifest.rows_read):
        raise DataError(
            f"output_dir {directory.path}: holds this data set, but {count} rows of it were dropped"
            f"{dropped.exceeded_by(manifest.rows_read)}; change the handlers and limits that drop them, or set "
            f"max_dropped_rows={count} to allow it"
        )


def _bad_rows_message(bad: Quarantine, counts: RowCounts, budget: RowBudget, *, is_complete: bool, where: str) -> str:
    """The error message for too many bad rows: the first of them by `path:row`, and the file that holds them.

    If no row was kept and all fail for the same reason, the config is probably wrong, and one sentence is enough.

    Args:
        bad: the rows that were saved.
        counts: what became of all rows.
        budget: the limit that was exceeded.
        is_complete: whether all rows were read.
        where: the file that the rows were saved in.
    """
    count = counts.quarantined
    first = list(islice(bad, _ROWS_IN_MESSAGE))
    hint = hint_for_reasons(row.reason for _, row in first)
    if len(counts.reasons) == 1 and count > _ROWS_IN_MESSAGE and not counts.kept and is_complete:
        path, row = first[0]
        problem = f"all {count} have the same problem: {row.reason} ({path}:{row.number} is the first)"
        return f"no row can be used; {problem}{hint}"
    head = f"{_at_least(count, is_complete=is_complete)} cannot be used"
    remedy = f"fix them, or set {budget.key}={count} to skip them{hint}" if is_complete else "Fix these rows first"
    exceeded = budget.exceeded_by(counts.read) if budget.limit else ""
    return _listed(f"{head}{exceeded}", first, count, len(bad), where, remedy, is_complete=is_complete)


def _dropped_rows_message(
    dropped: DroppedRows, counts: RowCounts, budget: RowBudget, *, is_complete: bool, where: str
) -> str:
    """The error message for too many dropped rows; the arguments are those of `_bad_rows_message`."""
    count = sum(counts.dropped.values())
    head = f"{_at_least(count, is_complete=is_complete)} dropped{budget.exceeded_by(counts.read)}"
    change = "change the handlers and limits that drop them"
    remedy = f"{change}, or set {budget.key}={count} to allow it" if is_complete else f"{change[0].upper()}{change[1:]}"
    first = list(islice(dropped, _ROWS_IN_MESSAGE))
    return _listed(head, first, count, len(dropped), where, remedy, is_complete=is_complete)


def _at_least(count: int, *, is_complete: bool) -> str:
    return f"{count}{'' if is_complete else ' or more'} row{'s' if count > 1 else ''}"


def _listed(
    head: str,
    first: Sequence[tuple[str, RemovedRow]],
    count: int,
    saved: int,
    where: str,
    remedy: str,
    *,
    is_complete: bool,
) -> str:
    """Return a message that lists the first rows; the remedy follows a semicolon, or is a sentence of its own."""
    lines = [f"{head}:", *(f"  {path}:{row.number}: {row.reason}" for path, row in first)]
    if count > len(first):
        lines.append(f"  ... and {count - len(first)} more")
    all_saved = "All of them are" if saved == count else f"The first {saved} of them are"
    stopped = "" if is_complete else "the run stopped before all rows were read. "
    return "\n".join([*lines, f"{all_saved} in {where}; {stopped}{remedy}."])
