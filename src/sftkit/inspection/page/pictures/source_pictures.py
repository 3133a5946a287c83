"""A picture of where rows and tokens come from, before and after splitting and mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sftkit.inspection.page.pictures.picture import Cell, Drawing, Picture
from sftkit.inspection.page.pictures.svg_bars import Bar, row_chart
from sftkit.shards.manifest import Manifest
from sftkit.shards.source_info import SourceInfo

_MAX_DRAWN = 8
_MAX_LISTED = 200


@dataclass(frozen=True)
class DatasetShare:
    """What a data set of the config contributes, over all its files and all splits."""

    name: str
    files: int
    weight: float | None
    """Its `sampling` in the config, or the share of the train split that the config asks for; None without a mix."""
    reached: float | None
    """Its share of the train split in the unit of the mix; None without a mix, and in older manifests."""
    copies: tuple[int, int] | None
    """How often the rows that are used least and most are in the train split."""
    trained_tokens: int
    """In the train split; 0 without a mix."""
    rows_read: int
    kept: tuple[int, int]
    """Rows and tokens that were kept, before splitting and mixing."""
    written: tuple[int, int] | None
    """Rows and tokens in the shards, where rows that the mix repeats count each time; None in older manifests."""


def datasets_of(manifest: Manifest) -> list[DatasetShare]:
    """Return the data sets of a manifest, in the order of the config."""
    weights = {
        str(each.get("name")): each.get("sampling")
        for each in manifest.config.get("datasets") or ()
        if isinstance(each, Mapping)
    }
    files: dict[str, list[SourceInfo]] = {}
    for source in manifest.sources:
        files.setdefault(source.dataset, []).append(source)
    is_recorded = any(source.written for source in manifest.sources)
    return [_share_of(name, sources, weights.get(name), is_recorded) for name, sources in files.items()]


def _share_of(name: str, sources: Sequence[SourceInfo], weight: object, is_recorded: bool) -> DatasetShare:
    written = [each for source in sources for each in source.written.values()]
    mixes = [source.mix for source in sources if source.mix is not None]
    wanted = sum(each.wanted_share for each in mixes) if mixes else None
    return DatasetShare(
        name=name,
        files=len(sources),
        weight=weight if isinstance(weight, int | float) else wanted,
        reached=sum(each.reached_share for each in mixes) if mixes else None,
        copies=(min(each.copies_min for each in mixes), max(each.copies_max for each in mixes)) if mixes else None,
        trained_tokens=sum(each.trained_tokens for each in mixes),
        rows_read=sum(source.rows_read for source in sources),
        kept=(sum(source.rows_kept for source in sources), sum(source.tokens_kept for source in sources)),
        written=(sum(each.rows for each in written), sum(each.tokens for each in written)) if is_recorded else None,
    )


def source_picture(manifest: Manifest) -> Picture | None:
    """Draw the rows and the tokens of each data set; None if there are none."""
    datasets = datasets_of(manifest)
    if not datasets:
        return None
    drawings = [_drawing(datasets, 0, "rows")]
    if any(each.kept[1] for each in datasets):
        drawings.append(_drawing(datasets, 1, "tokens"))
    mixed = [each for each in datasets if each.reached is not None]
    if mixed:
        drawings.append(_mix_drawing(mixed))
    note = "Kept: before splitting and mixing. In the shards: what splitting and mixing took, all splits together."
    if manifest.rows_repeated or manifest.rows_left_out:
        note += f" The mix repeats {manifest.rows_repeated:,} rows; {manifest.rows_left_out:,} are not used."
    if mixed:
        note += " Wanted and reached: shares of the train split, in the unit that the mix counts."
    return Picture("sources", "Data sets, before and after the mix", tuple(drawings), note)


def _drawing(datasets: Sequence[DatasetShare], index: int, unit: str) -> Drawing:
    kept = sum(each.kept[index] for each in datasets)
    written = sum(each.written[index] for each in datasets if each.written is not None)
    weights = sum(each.weight or 0 for each in datasets)
    bars, table = [], []
    for each in sorted(datasets, key=lambda item: -item.kept[index])[:_MAX_DRAWN]:
        before = _share(each.kept[index], kept)
        bars.append(Bar(f"{each.name}, kept · {before}", each.kept[index], f"{each.name}: {before} of the {unit} kept"))
        if each.written is not None:
            after = _share(each.written[index], written)
            tip = f"{each.name}: {after} of the {unit} in the shards"
            bars.append(Bar(f"{each.name}, in the shards · {after}", each.written[index], tip, style="after"))
    for each in datasets[:_MAX_LISTED]:
        line: tuple[Cell, ...] = (
            each.name,
            each.files,
            each.rows_read,
            each.kept[index],
            _share(each.kept[index], kept),
            each.written[index] if each.written is not None else None,
            _share(each.written[index], written) if each.written is not None else "–",
            _share(each.weight, weights) if each.weight is not None else "not mixed",
        )
        table.append(line)
    columns = (
        "data set",
        "files",
        "rows read",
        f"{unit} kept",
        "share",
        f"{unit} in shards",
        "share",
        "weight in the mix",
    )
    description = f"{unit} of each data set before and after splitting and mixing"
    return Drawing(unit, row_chart(f"{unit} by data set", description, bars), columns, table)


def _mix_drawing(datasets: Sequence[DatasetShare]) -> Drawing:
    """Draw the shares of the train split that the config asks for, and those that came out."""
    weights = sum(each.weight or 0 for each in datasets)
    bars: list[Bar] = []
    table = []
    for each in datasets[:_MAX_LISTED]:
        wanted, reached = (each.weight or 0) / (weights or 1), each.reached or 0
        shown = f"{wanted:.2%}", f"{reached:.2%}"
        if len(bars) < 2 * _MAX_DRAWN:
            labels = f"{each.name}, wanted · {shown[0]}", f"{each.name}, reached · {shown[1]}"
            bars.append(Bar(labels[0], round(wanted * 100), labels[0]))
            bars.append(Bar(labels[1], round(reached * 100), labels[1], style="after"))
        line: tuple[Cell, ...] = (each.name, *shown, *(each.copies or (None, None)), each.trained_tokens)
        table.append(line)
    columns = ("data set", "wanted", "reached", "fewest copies", "most copies", "trained tokens")
    chart = row_chart("percent by data set", "wanted and reached share of each data set in the train split", bars)
    return Drawing("shares", chart, columns, table)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"
