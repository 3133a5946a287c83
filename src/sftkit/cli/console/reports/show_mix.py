"""A table of rows and tokens by source or data set, before and after splitting and mixing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from sftkit.cli.console.text_lines import new_table, percent
from sftkit.config.schema.data_config import ROWS
from sftkit.core.escape import escape_to_one_line
from sftkit.inspection.summary.dataset_summary import SplitSummary
from sftkit.shards.manifest import Manifest
from sftkit.shards.source_info import SourceInfo, WrittenRows

_MAX_LISTED = 50
_NOTHING = WrittenRows(0, 0)
_TRAINED, _COPIES = "trained", "copies"


def sampling_weights(manifest: Manifest) -> dict[str, float | None]:
    """Return the sampling weight of each data set, as its config says; None for one without a weight."""
    datasets = manifest.config.get("datasets") or ()
    return {str(each.get("name")): each.get("sampling") for each in datasets if isinstance(each, Mapping)}


def is_mixed(manifest: Manifest) -> bool:
    """Whether the train split is a mix, with a share or an amount of each data set."""
    return any(source.mix is not None for source in manifest.sources)


def mix_table(manifest: Manifest, by: str) -> Table:
    """Return the table.

    Args:
        manifest: counts the rows.
        by: `source`, one line a file, or `dataset`.
    """
    weights = sampling_weights(manifest)
    groups: dict[tuple[str, ...], list[SourceInfo]] = {}
    for number, source in enumerate(manifest.sources):
        key: tuple[str, ...] = (source.dataset,) if by == "dataset" else (str(number), source.path, source.dataset)
        groups.setdefault(key, []).append(source)
    is_weighted = any(weight is not None for weight in weights.values())
    shares = _share_headings(manifest, is_weighted)
    splits = list(manifest.splits)
    names: tuple[str, ...] = ("dataset",) if by == "dataset" else ("source", "dataset")
    headings = ["rows kept", "tokens kept"]
    for split in splits:
        headings += [f"{split} rows", f"{split} tokens"]
    table = new_table(*names, right=(*(("weight",) if is_weighted else ()), *headings, *shares))
    for key, sources in list(groups.items())[:_MAX_LISTED]:
        weight = weights.get(sources[0].dataset)
        shown = [] if not is_weighted else ["-" if weight is None else f"{weight:g}"]
        cells = [Text(escape_to_one_line(name)) for name in key[-len(names) :]]
        table.add_row(*cells, *shown, *_counts(sources, manifest, splits), *_shares(sources, shares))
    if len(groups) > _MAX_LISTED:
        table.add_row(f"... {len(groups) - _MAX_LISTED:,} more")
    blank = [""] * (len(names) - 1 + is_weighted)
    counts = [*_counts(manifest.sources, manifest, splits), *_shares(manifest.sources, shares)]
    table.add_row("all", *blank, *counts, style="bold")
    return table


def source_table(split: SplitSummary) -> Table:
    """Return a table of what a split has of each data set, counted in its column `source`."""
    table = new_table(split.name, right=("sequences", "tokens", "trained", "share of the loss"))
    sources = split.by_source or {}
    weight = sum(each.loss_weight for each in sources.values())
    for name, each in list(sources.items())[:_MAX_LISTED]:
        table.add_row(
            Text(escape_to_one_line(name)),
            *(f"{count:,}" for count in (each.sequences, each.tokens, each.trained_tokens)),
            f"{each.loss_weight / weight:.1%}" if weight else "-",
        )
    if len(sources) > _MAX_LISTED:
        table.add_row(f"... {len(sources) - _MAX_LISTED:,} more")
    return table


def _counts(sources: Sequence[SourceInfo], manifest: Manifest, splits: Sequence[str]) -> Iterator[str]:
    yield f"{sum(source.rows_kept for source in sources):,}"
    yield f"{sum(source.tokens_kept for source in sources):,}"
    for split in splits:
        for name in ("rows", "tokens"):
            part, whole = (
                sum(getattr(source.written.get(split, _NOTHING), name) for source in every)
                for every in (sources, manifest.sources)
            )
            yield f"{part:,}{percent(part, whole)}"


def _share_headings(manifest: Manifest, is_weighted: bool) -> list[str]:
    """The headings of what the mix made of each source. The shares of a mix by `sampling` are shown as weights."""
    if not is_mixed(manifest):
        return []
    if is_weighted:
        return [_TRAINED, _COPIES]
    processor = manifest.config.get("dataprocessor")
    mix_by = processor.get("mix_by", ROWS) if isinstance(processor, Mapping) else ROWS
    return [_TRAINED, _COPIES, f"wanted {mix_by}".replace("_", " "), "reached"]


def _shares(sources: Sequence[SourceInfo], headings: Sequence[str]) -> Iterator[str]:
    mixes = [source.mix for source in sources if source.mix is not None]
    for heading in headings:
        if heading == _TRAINED:
            yield f"{sum(each.trained_tokens for each in mixes):,}"
        elif heading == _COPIES:
            used = [each for each in mixes if each.copies_max] or mixes
            least, most = (min((each.copies_min for each in used), default=0), max(each.copies_max for each in mixes))
            yield f"{least}" if least == most else f"{least}-{most}"
        else:
            key = "reached_share" if heading == "reached" else "wanted_share"
            yield f"{sum(getattr(each, key) for each in mixes):.2%}"
