"""Row counts, and the check that every row is accounted for: read + added = kept + dropped + quarantined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sftkit.core.accounting.cuts import Cuts
from sftkit.core.accounting.unused_columns import add_counts
from sftkit.errors import DataError
from sftkit.ordering.packing import keeps_rows_whole
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.manifest import Manifest
from sftkit.shards.staging.later_removal import LaterRemoval
from sftkit.shards.staging.removed_rows import count_reason
from sftkit.shards.staging.staged_unit import StagedUnit


class RowAccountingError(Exception):
    """Rows were lost or repeated, which is a bug. No data set is published; the message says which counts differ."""


@dataclass(frozen=True)
class RowCounts:
    """What became of the rows of some units."""

    read: int
    kept: int
    drops: Mapping[str, Mapping[str, int]]
    """Dropped rows: handler -> reason -> count."""
    reasons: Mapping[str, int]
    """Quarantined rows: kind of reason -> count."""
    cuts: Cuts
    """What was cut off rows."""
    not_rendered: Mapping[str, int]
    """Rows by keys that the chat template did not render."""
    added: int
    """Rows that rows were split into, beyond the first of each."""
    unused_columns: Mapping[str, int]
    """Columns that are not used -> rows in which they are filled."""

    @classmethod
    def of(cls, staged: Iterable[StagedUnit]) -> RowCounts:
        """Count the rows of some units."""
        return cls.total(
            cls(
                unit.rows_read,
                unit.rows_kept,
                *_with_later_removals(
                    unit.drops, unit.bad_rows.reasons, [(each, len(each.rows)) for each in unit.later_removals]
                ),
                unit.cuts_of(0, unit.rows, unit.cuts),
                unit.not_rendered,
                unit.rows_added,
                unit.unused_columns,
            )
            for unit in staged
        )

    @classmethod
    def per_file(cls, unit: StagedUnit) -> list[RowCounts]:
        """Count the rows of each file of a unit."""
        if not unit.files:
            return [cls.of([unit])]
        ends = np.cumsum([file.rows for file in unit.files])
        removed_by_file = [
            np.bincount(np.searchsorted(ends, each.rows, side="right"), minlength=len(ends)).tolist()
            for each in unit.later_removals
        ]
        counts = []
        for index, (file, stop) in enumerate(zip(unit.files, ends.tolist(), strict=True)):
            later = [(each, by_file[index]) for each, by_file in zip(unit.later_removals, removed_by_file, strict=True)]
            drops, reasons = _with_later_removals(file.drops, file.reasons, later)
            cuts = unit.cuts_of(stop - file.rows, stop, file.cuts)
            counts.append(
                cls(
                    *(file.read, file.rows - sum(count for _, count in later), drops, reasons, cuts),
                    *(file.not_rendered, file.added, file.unused_columns),
                )
            )
        return counts

    @classmethod
    def total(cls, counts: Iterable[RowCounts]) -> RowCounts:
        """Add up counts."""
        read = kept = added = 0
        drops: dict[str, Counter[str]] = {}
        reasons: Counter[str] = Counter()
        unused: list[Mapping[str, int]] = []
        cuts = Cuts()
        not_rendered: Counter[str] = Counter()
        for each in counts:
            read, kept, cuts = read + each.read, kept + each.kept, cuts + each.cuts
            not_rendered.update(each.not_rendered)
            added += each.added
            unused.append(each.unused_columns)
            for handler, dropped in each.drops.items():
                drops.setdefault(handler, Counter()).update(dropped)
            for reason, count in each.reasons.items():
                count_reason(reasons, reason, count)
        by_handler = {handler: dict(sorted(dropped.items())) for handler, dropped in sorted(drops.items())}
        by_reason, by_key = dict(sorted(reasons.items())), dict(sorted(not_rendered.items()))
        return cls(read, kept, by_handler, by_reason, cuts, by_key, added, add_counts(unused))

    @property
    def dropped(self) -> dict[str, int]:
        """Dropped rows: reason -> count."""
        dropped: Counter[str] = Counter()
        for reasons in self.drops.values():
            dropped.update(reasons)
        return dict(sorted(dropped.items()))

    @property
    def quarantined(self) -> int:
        """The number of quarantined rows."""
        return sum(self.reasons.values())


def _with_later_removals(
    drops: Mapping[str, Mapping[str, int]], reasons: Mapping[str, int], later: Iterable[tuple[LaterRemoval, int]]
) -> tuple[Mapping[str, Mapping[str, int]], Mapping[str, int]]:
    """Add what was removed after staging, with the number of rows, to dropped rows and to quarantined ones."""
    all_drops, all_reasons = dict(drops), Counter(reasons)
    for removal, count in later:
        if removal.is_quarantine:
            all_reasons[removal.reason] += count
        elif count:
            all_drops[removal.step] = {**all_drops.get(removal.step, {}), removal.reason: count}
    return all_drops, +all_reasons


def check_rows_left(plan: Plan, staged: Sequence[StagedUnit]) -> None:
    """Raise `DataError` if a data set with files has no rows left."""
    filled = {file.file.dataset for file in plan.files}
    for dataset in (each for each in plan.recipe.datasets if each.name in filled):
        units = [unit for unit in staged if plan.units[unit.number].file.dataset == dataset.name]
        if not any(unit.rows_kept for unit in units):
            raise DataError(_no_rows_message(units, dataset.data_paths[0]))


def _no_rows_message(staged: Sequence[StagedUnit], where: str) -> str:
    """The error message for a data set without rows."""
    counts = RowCounts.of(staged)
    if not counts.read:
        return f"{where}: holds no rows; name files that have rows"
    lost = [f"{count} dropped ({reason})" for reason, count in counts.dropped.items()]
    lost += [f"{count} quarantined ({reason})" for reason, count in counts.reasons.items()]
    return f"{where}: no rows left of {counts.read} read: {', '.join(lost)}; check the handlers and limits named here"


def check_row_accounting(manifest: Manifest) -> None:
    """Check that every row that was read is accounted for exactly once.

    Raises:
        RowAccountingError: with all counts that do not add up.
    """
    differences = list(_differences(manifest))
    if differences:
        raise RowAccountingError(f"the rows do not add up: {'; '.join(differences)}")


def _differences(manifest: Manifest) -> Iterator[str]:
    sources = manifest.sources
    for source in sources:
        dropped = sum(source.dropped.values())
        parts = f"{source.rows_kept} kept, {dropped} dropped, {source.quarantined} quarantined"
        if source.rows_read + source.rows_added != source.rows_kept + dropped + source.quarantined:
            added = f", {source.rows_added} added" if source.rows_added else ""
            yield f"{source.path} ({source.dataset}): {source.rows_read} rows read{added}, {parts}"
    totals = {
        "rows read": (manifest.rows_read, sum(source.rows_read for source in sources)),
        "rows added": (manifest.rows_added, sum(source.rows_added for source in sources)),
        "rows dropped": (sum(manifest.dropped.values()), sum(sum(source.dropped.values()) for source in sources)),
        "rows dropped, by handler": (_sum(manifest.dropped_by_handler), sum(manifest.dropped.values())),
        **_cut_totals(manifest),
        "rows quarantined": (manifest.quarantined, sum(source.quarantined for source in sources)),
        "rows quarantined, by reason": (sum(manifest.quarantined_by_reason.values()), manifest.quarantined),
        "rows kept": (
            manifest.rows_written - manifest.rows_repeated + manifest.rows_left_out,
            sum(source.rows_kept for source in sources),
        ),
        "rows written": (
            manifest.rows_written,
            sum(written.rows for source in sources for written in source.written.values()),
        ),
    }
    for what, (total, sum_of_parts) in totals.items():
        if total != sum_of_parts:
            yield f"{total} {what} in all, {sum_of_parts} in parts"
    for name, split in manifest.splits.items():
        tokens = sum(source.written[name].tokens for source in sources if name in source.written)
        if tokens != split.tokens:
            yield f"{split.tokens} tokens in {name}, {tokens} in its sources"
    in_shards = [split.rows if split.sequences is None else split.sequences for split in manifest.splits.values()]
    if sum(in_shards) != manifest.rows_written and keeps_rows_whole(manifest.config.get("packing")):
        yield f"{manifest.rows_written} rows to write, {sum(in_shards)} in shards"


def _cut_totals(manifest: Manifest) -> dict[str, tuple[int, int]]:
    parts = sum((source.cuts or Cuts() for source in manifest.sources), Cuts())
    totals = zip(asdict(manifest.cuts or Cuts()).items(), asdict(parts).values(), strict=True)
    return {f"{name.replace('_', ' ')} cut": (total, part) for (name, total), part in totals}


def _sum(nested: Mapping[str, Mapping[str, int]]) -> int:
    return sum(sum(each.values()) for each in nested.values())
