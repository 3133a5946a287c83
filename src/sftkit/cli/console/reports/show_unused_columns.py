"""Lines about columns that hold data and are not used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sftkit.core.accounting.unused_columns import add_counts, describe_unused
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.manifest import Manifest

_MAX_SHOWN = 20
"""Columns of a data set that are shown; the manifest has more."""


def unused_columns_of(manifest: Manifest) -> Iterator[str]:
    """Yield a line for each data set with columns that no row used.

    Names come from the data, so the lines must be escaped.
    """
    names = list(dict.fromkeys(source.dataset for source in manifest.sources))
    for name in names:
        sources = [source for source in manifest.sources if source.dataset == name]
        counts = add_counts(source.columns_not_used for source in sources)
        where = f" in {name}" if len(names) > 1 else ""
        yield from _line(where, counts, sum(source.rows_read for source in sources), of_sample=False)


def unused_columns_of_plan(plan: Plan) -> Iterator[str]:
    """Yield such lines for the first rows of each data set, without the columns that the config ignores."""
    for dataset in plan.recipe.datasets:
        sample = plan.samples[dataset.name]
        ignored = {*dataset.ignore_columns, *plan.config.ignore_columns}
        counts = {name: rows for name, rows in sample.unused.items() if name not in ignored}
        where = f" in {dataset.name}" if len(plan.recipe.datasets) > 1 else ""
        yield from _line(where, counts, sample.rows, of_sample=True)


def _line(where: str, counts: Mapping[str, int], rows: int, *, of_sample: bool) -> Iterator[str]:
    if not counts:
        return
    ordered = sorted(counts.items(), key=lambda column: -column[1])
    shown = [
        f"`{name}` ({describe_unused(filled, rows, of_sample=of_sample)})" for name, filled in ordered[:_MAX_SHOWN]
    ]
    more = f", and {len(ordered) - _MAX_SHOWN:,} more columns" if len(ordered) > _MAX_SHOWN else ""
    yield f"not used{where}: {', '.join(shown)}{more}"
