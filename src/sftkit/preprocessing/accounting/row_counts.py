"""Rows read against what became of them: read = kept + dropped + quarantined, for every source and for all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sftkit.ordering.packing import keeps_rows_whole
from sftkit.shards.manifest import Manifest
from sftkit.shards.staging.bad_rows import count_reason
from sftkit.shards.staging.staged_unit import StagedUnit


class RowAccountingError(Exception):
    """Rows are missing, or there are too many: a bug of ours, and no data set comes of it. The message adds it up."""


@dataclass(frozen=True)
class RowCounts:
    """What became of the rows of some units.

    drops: rows that were dropped, by handler and reason. reasons: rows that were quarantined, by kind of reason.
    """

    read: int
    kept: int
    drops: Mapping[str, Mapping[str, int]]
    reasons: Mapping[str, int]

    @classmethod
    def of(cls, staged: Sequence[StagedUnit]) -> RowCounts:
        """The account of some units together."""
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
        """Rows that were dropped, by reason."""
        dropped: Counter[str] = Counter()
        for reasons in self.drops.values():
            dropped.update(reasons)
        return dict(sorted(dropped.items()))

    @property
    def quarantined(self) -> int:
        """Rows that were quarantined."""
        return sum(self.reasons.values())


def check_row_accounting(manifest: Manifest) -> None:
    """See that every row that was read is accounted for, once.

    Raises:
        UnbalancedError: it is not so; with all that does not add up.
    """
    wrong = list(_differences(manifest))
    if wrong:
        raise RowAccountingError(f"the rows do not add up: {'; '.join(wrong)}")


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
    for what, (total, parts_together) in totals.items():
        if total != parts_together:
            yield f"{total} rows {what} in all, {parts_together} in parts"
    in_shards = [split.rows if split.sequences is None else split.sequences for split in manifest.splits.values()]
    if sum(in_shards) != manifest.rows_written and keeps_rows_whole(manifest.config.get("packing")):
        yield f"{manifest.rows_written} rows to write, {sum(in_shards)} in shards"


def _sum(nested: Mapping[str, Mapping[str, int]]) -> int:
    return sum(sum(each.values()) for each in nested.values())
