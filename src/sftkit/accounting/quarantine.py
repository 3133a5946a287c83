"""All quarantined rows of a run, read from where they are when they are wanted: they may be more than memory holds."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from sftkit.accounting.balance import Account, UnbalancedError
from sftkit.accounting.tolerance import Tolerance
from sftkit.fitting import misfits
from sftkit.packing import pack_length_of
from sftkit.planning import Plan
from sftkit.rows import BadRow
from sftkit.shards.staging import StagedUnit

_SHOWN = 10


class Quarantine(Collection[tuple[str, BadRow]]):
    """(path, row) of every bad row, in the order of the sources and of their rows.

    most: no more than so many of them.
    """

    def __init__(self, plan: Plan, staged: Sequence[StagedUnit], most: int | None = None) -> None:
        self._units = plan.units
        self._staged = staged
        self._pack_length = pack_length_of(plan.config)
        self._most = most

    def __len__(self) -> int:
        count = sum(unit.quarantined for unit in self._staged)
        return count if self._most is None else min(count, self._most)

    def __iter__(self) -> Iterator[tuple[str, BadRow]]:
        """Read them.

        Raises:
            SourceError: a row that fits no pack can no longer be read from its source.
            UnbalancedError: there are not as many as were counted.
        """
        given = 0
        for row in islice(self._all(), self._most):
            given += 1
            yield row
        if given != len(self):
            raise UnbalancedError(f"{len(self)} bad rows were counted, and {given} were kept")

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)

    def _all(self) -> Iterator[tuple[str, BadRow]]:
        for staged in self._staged:
            unit = self._units[staged.number]
            unfit = misfits(staged, unit, self._pack_length) if self._pack_length is not None else iter(())
            for row in heapq.merge(staged.bad, unfit, key=lambda row: row.number):
                yield unit.file.path, row


def bad_rows_message(bad: Quarantine, account: Account, tolerance: Tolerance, *, is_whole: bool, where: str) -> str:
    """The error for too many bad rows: the first of them by `path:row`, and where all of them are.

    Where no row was kept and all fail for one reason, the config is at fault, and one sentence says it.

    Args:
        bad: those that are kept to be looked at.
        account: of all rows that were read.
        tolerance: what was exceeded.
        is_whole: all rows were read; if not, the run was given up.
        where: the file that they are in.
    """
    count = account.quarantined
    first = list(islice(bad, _SHOWN))
    if len(account.reasons) == 1 and count > _SHOWN and not account.kept and is_whole:
        path, row = first[0]
        return (
            f"no row can be used, all {count} of them for one reason: {row.reason} ({path}:{row.number} is the first)"
        )
    head = f"{count}{'' if is_whole else ' or more'} row{'s' if count > 1 else ''} cannot be used"
    lines = [f"{head}{tolerance.exceeded(account.read)}:"]
    lines += [f"  {path}:{row.number}: {row.reason}" for path, row in first]
    if count > len(first):
        lines.append(f"  ... and {count - len(first)} more")
    whole = "All of them are" if len(bad) == count else f"The first {len(bad)} of them are"
    if is_whole:
        lines.append(f"{whole} in {where}; mend them, or allow for them with max_bad_rows={count}.")
    else:
        lines.append(f"{whole} in {where}, and the run was given up before all rows were read; mend them first.")
    return "\n".join(lines)
