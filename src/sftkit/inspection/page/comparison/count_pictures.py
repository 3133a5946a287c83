"""Pictures and tables of the counts of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.inspection.compare.comparison import (
    DIFFERENCE_KINDS,
    KIND_NAMES,
    Comparison,
    KindCounts,
    SourceComparison,
)
from sftkit.inspection.page.pictures.picture import Cell, Drawing, Picture
from sftkit.inspection.page.pictures.svg_bars import Bar, row_chart

KINDS = ("identical", *DIFFERENCE_KINDS)

_MAX_DRAWN = 8


def count_pictures(found: Comparison) -> list[Picture]:
    """Draw the rows by kind of difference and, if they are known, by source; nothing if no row differs."""
    pictures = [_kinds(found.counts)] if found.differs else []
    return [*pictures, _sources(found.sources)] if found.sources else pictures


def count_cells(counts: KindCounts) -> tuple[int, ...]:
    """Return the counts in the order of `KINDS`."""
    return tuple(getattr(counts, kind) for kind in KINDS)


def _kinds(counts: KindCounts) -> Picture:
    total = counts.identical + counts.differences
    drawings = []
    for name, kinds in (("differences", DIFFERENCE_KINDS), ("with identical rows", KINDS)):
        numbers = [(KIND_NAMES[kind], getattr(counts, kind)) for kind in kinds]
        bars = [Bar(label, rows, f"{label}: {rows:,} of {total:,}, {rows / total:.2%}") for label, rows in numbers]
        svg = row_chart(f"Rows by kind of difference, {name}", "pairs of rows, and rows without a counterpart", bars)
        table = [(label, rows, f"{rows / total:.2%}") for label, rows in numbers]
        drawings.append(Drawing(name, svg, ("kind", "rows", "share"), table))
    return Picture("kinds", "Rows by kind of difference", tuple(drawings), f"{counts.identical:,} are identical.")


def _sources(sources: Sequence[SourceComparison]) -> Picture:
    ordered = sorted(sources, key=lambda each: -each.counts.differences)
    bars = [Bar(each.source, each.counts.differences, _tip(each)) for each in ordered[:_MAX_DRAWN]]
    svg = row_chart("Rows that differ by source", "rows that differ, of the sources with the most of them", bars)
    table: list[tuple[Cell, ...]] = [
        (each.source, each.counts.differences, each.counts.identical) for each in ordered[:_MAX_DRAWN]
    ]
    more = f"{len(ordered) - _MAX_DRAWN} more sources have differences." if len(ordered) > _MAX_DRAWN else ""
    drawing = Drawing("", svg, ("source", "rows that differ", "identical"), table)
    return Picture("sources", "Rows that differ by source", (drawing,), more)


def _tip(source: SourceComparison) -> str:
    counts = source.counts
    return f"{source.source}: {counts.differences:,} of {counts.identical + counts.differences:,} differ"
