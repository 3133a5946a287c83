"""Row counts, and the check that every row is accounted for: read = kept + dropped + quarantined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sftkit.ordering.packing import keeps_rows_whole
from sftkit.shards.manifest import Manifest
from sftkit.shards.staging.bad_rows import count_reason
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

    @classmethod
    def of(cls, staged: Sequence[StagedUnit]) -> RowCounts:
        """Add up the rows of some units."""
        drops: dict[str, Counter[str]] = {}
        reasons: Counter[str] = Counter()
        for unit in staged:
            for handler, dropped in unit.drops.items():
                drops.setdefault(handler, Counter()).update(dropped)
            for reason, count in (*unit.bad_rows.reasons.items(), *unit.overflow_reasons.items()):
                count_reason(reasons, reason, count)
        by_handler = {handler: dict(sorted(dropped.items())) for handler, dropped in sorted(drops.items())}
        read, kept = sum(unit.rows_read for unit in staged), sum(unit.rows_kept for unit in staged)
        return cls(read, kept, by_handler, dict(sorted(reasons.items())))

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
        if source.rows_read != source.rows_kept + dropped + source.quarantined:
            yield f"{source.path} ({source.dataset}): {source.rows_read} rows read, {parts}"
    totals = {
        "read": (manifest.rows_read, sum(source.rows_read for source in sources)),
        "dropped": (sum(manifest.dropped.values()), sum(sum(source.dropped.values()) for source in sources)),
        "dropped, by handler": (_sum(manifest.dropped_by_handler), sum(manifest.dropped.values())),
        "quarantined": (manifest.quarantined, sum(source.quarantined for source in sources)),
        "quarantined, by reason": (sum(manifest.quarantined_by_reason.values()), manifest.quarantined),
        "kept": (
            manifest.rows_written - manifest.rows_repeated + manifest.rows_left_out,
            sum(source.rows_kept for source in sources),
        ),
    }
    for what, (total, sum_of_parts) in totals.items():
        if total != sum_of_parts:
            yield f"{total} rows {what} in all, {sum_of_parts} in parts"
    in_shards = [split.rows if split.sequences is None else split.sequences for split in manifest.splits.values()]
    if sum(in_shards) != manifest.rows_written and keeps_rows_whole(manifest.config.get("packing")):
        yield f"{manifest.rows_written} rows to write, {sum(in_shards)} in shards"


def _sum(nested: Mapping[str, Mapping[str, int]]) -> int:
    return sum(sum(each.values()) for each in nested.values())
