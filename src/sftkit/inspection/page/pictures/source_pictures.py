"""Pictures of where the rows come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftkit.inspection.page.pictures.picture import Drawing, Picture
from sftkit.inspection.page.pictures.svg_bars import Bar, row_chart
from sftkit.shards.manifest import Manifest

_MAX_DRAWN = 12
_MAX_LISTED = 200


@dataclass(frozen=True)
class DatasetRows:
    """The rows of a data set of the config, over all its files."""

    name: str
    files: int
    rows_read: int
    rows_kept: int
    removed: int
    """Dropped and quarantined rows."""
    weight: float | None
    """Its `sampling` in the config: the share of its rows in the mix; None without a mix."""


def datasets_of(manifest: Manifest) -> list[DatasetRows]:
    """Return the data sets of a manifest, in the order of the config."""
    weights = {
        str(each.get("name")): each.get("sampling")
        for each in manifest.config.get("datasets") or ()
        if isinstance(each, Mapping)
    }
    found: dict[str, DatasetRows] = {}
    for source in manifest.sources:
        name = source.dataset
        removed = sum(source.dropped.values()) + source.quarantined
        weight = weights.get(name)
        known = found.get(name) or DatasetRows(name, 0, 0, 0, 0, weight if isinstance(weight, int | float) else None)
        found[name] = DatasetRows(
            name,
            known.files + 1,
            known.rows_read + source.rows_read,
            known.rows_kept + source.rows_kept,
            known.removed + removed,
            known.weight,
        )
    return list(found.values())


def source_picture(manifest: Manifest) -> Picture | None:
    """Draw the rows of each data set; None if there are none."""
    datasets = datasets_of(manifest)
    if not datasets:
        return None
    kept = sum(each.rows_kept for each in datasets)
    weights = sum(each.weight or 0 for each in datasets)

    def share(part: float, whole: float) -> str:
        return f"{part / whole:.1%}" if whole else "-"

    bars = []
    for each in sorted(datasets, key=lambda item: -item.rows_kept)[:_MAX_DRAWN]:
        label = f"{each.name} · {share(each.rows_kept, kept)}"
        if each.weight is not None:
            label += f" → {share(each.weight, weights)} of the mix"
        tip = f"{each.name}: {each.rows_read:,} rows read, {each.rows_kept:,} kept, {each.removed:,} removed"
        bars.append(Bar(label, each.rows_kept, tip))
    svg = row_chart("Rows by source", "rows that each data set contributes before splitting and mixing", bars)
    columns = ("data set", "files", "rows read", "rows kept", "removed", "share before the mix", "share of the mix")
    table = [
        (
            each.name,
            each.files,
            each.rows_read,
            each.rows_kept,
            each.removed,
            share(each.rows_kept, kept),
            share(each.weight, weights) if each.weight is not None else "not mixed",
        )
        for each in datasets[:_MAX_LISTED]
    ]
    note = "Rows kept are counted before splitting and mixing."
    if manifest.rows_repeated or manifest.rows_left_out:
        note += f" The mix repeats {manifest.rows_repeated:,} rows; {manifest.rows_left_out:,} are not used."
    return Picture("sources", "Rows by source", (Drawing("", svg, columns, table),), note)
