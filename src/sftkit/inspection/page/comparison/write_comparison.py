"""Makes a page of a comparison, and writes it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sftkit.config.commands import InspectConfig
from sftkit.core.progress import Progress
from sftkit.inspection.compare.compare_datasets import PairedDatasets, describe, pair_datasets, read_examples
from sftkit.inspection.compare.comparison import (
    IDS_DIFFER,
    KIND_NAMES,
    LABELS_DIFFER,
    MOVED,
    ONLY_IN_A,
    ONLY_IN_B,
    ComparedSide,
    Comparison,
    SettingDifference,
)
from sftkit.inspection.compare.examples import ChosenExample, Window, choose_examples
from sftkit.inspection.page.bubbles import Bubble
from sftkit.inspection.page.comparison.count_pictures import KINDS, count_cells, count_pictures
from sftkit.inspection.page.comparison.example_views import ExampleView, example_view, paired_name
from sftkit.inspection.page.page_file import MAX_BYTES, save_page
from sftkit.inspection.page.pictures.picture import Cell
from sftkit.inspection.page.render import render_page
from sftkit.inspection.page.token_data import token_data

_WIDE = Window(before=24, after=48, alone=96)
_MAX_SETTINGS, _MAX_SOURCES, _MAX_NOTES, _MAX_DETAILS = 300, 200, 30, 400
_MAX_VALUE = 2000
_ORDER = (IDS_DIFFER, LABELS_DIFFER, ONLY_IN_A, ONLY_IN_B, MOVED)
"""Examples of pairs that differ come first."""


@dataclass(frozen=True)
class SettingView:
    """A setting that the manifests give differently."""

    key: str
    a: str
    b: str
    details: tuple[str, ...]


def compare_with_page(config: InspectConfig, progress: Progress | None = None) -> Comparison:
    """Compare two data sets, and write the page that `config.report` names.

    Raises:
        UsageError, SourceError, DataError, TokenizerError, ConfigError: as `compare_datasets`.
        PageError: the page cannot be written.
    """
    paired = pair_datasets(config, progress)
    found = describe(config, paired)
    save_page(config, make_comparison_page(config, paired, found), found)
    return found


def make_comparison_page(config: InspectConfig, paired: PairedDatasets, found: Comparison) -> str:
    """Return the HTML of a comparison, at most `MAX_BYTES` long, with at most `config.report_rows` examples."""
    chosen = _choose(paired, config.report_rows)
    examples, notes = read_examples(config, paired, chosen, _WIDE)
    views = [example_view(number, example, config.compare_by) for number, example in enumerate(examples, 1)]
    notes = list(dict.fromkeys((*found.notes, *notes)))
    wanted = len(views)
    while True:
        page = _render(config, found, views, wanted - len(views), notes)
        if len(page.encode()) <= MAX_BYTES or not views:
            return page
        views = views[::2] if len(views) > 1 else []


def _choose(paired: PairedDatasets, most: int) -> list[ChosenExample]:
    """Choose examples of all kinds, about as many of each, pairs that differ first."""
    every = choose_examples(paired.splits, paired.moved, most)
    left = Counter(example.kind for example in every)
    taken: Counter[str] = Counter()
    while (open_kinds := [kind for kind in left if taken[kind] < left[kind]]) and taken.total() < most:
        for kind in open_kinds[: most - taken.total()]:
            taken[kind] += 1
    kept = []
    for example in sorted(every, key=lambda each: _ORDER.index(each.kind)):
        if taken[example.kind]:
            taken[example.kind] -= 1
            kept.append(example)
    return kept


def _render(
    config: InspectConfig, found: Comparison, views: Sequence[ExampleView], left_out: int, notes: Sequence[str]
) -> str:
    shown = Counter(view.kind for view in views)
    paired = [
        (split.name, paired_name(how, config.compare_by), pairs)
        for split in found.splits
        for how, pairs in split.paired_by.items()
    ]
    sources = [(each.source, each.dataset, *count_cells(each.counts)) for each in found.sources]
    return render_page(
        "comparison.html.jinja",
        name=f"{found.a.location} and {found.b.location}",
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        found=found,
        kinds=[KIND_NAMES[kind] for kind in KINDS],
        key_numbers=list(zip([KIND_NAMES[kind] for kind in KINDS], count_cells(found.counts), strict=True)),
        facts=_facts(found.a, found.b),
        splits=_split_lines(found),
        paired=paired,
        sources=sources[:_MAX_SOURCES],
        more_sources=len(sources[_MAX_SOURCES:]),
        pictures=count_pictures(found),
        settings=[_setting(each) for each in found.settings[:_MAX_SETTINGS]],
        more_settings=len(found.settings[_MAX_SETTINGS:]),
        both_have_manifests=found.a.has_manifest and found.b.has_manifest,
        notes=notes[:_MAX_NOTES],
        more_notes=len(notes[_MAX_NOTES:]),
        rows=views,
        left_out=left_out,
        wants_rows=bool(config.report_rows),
        reasons={
            KIND_NAMES[kind]: (shown[KIND_NAMES[kind]], getattr(found.counts, kind))
            for kind in _ORDER
            if shown[KIND_NAMES[kind]]
        },
        looks=_looks([bubble for view in views for bubble in view.bubbles]),
        tokens=token_data({view.key: view.bubbles for view in views}),
    )


def _facts(a: ComparedSide, b: ComparedSide) -> list[tuple[Cell, ...]]:
    """Return a table of what both data sets hold: name, A, B."""
    rows: list[tuple[Cell, ...]] = [
        (f"{split}: sequences" if a.packed or b.packed else f"{split}: rows", a.splits.get(split), b.splits.get(split))
        for split in dict.fromkeys((*a.splits, *b.splits))
    ]
    rows.append(("tokens" if a.trained_tokens is not None else "tokens (bytes of text)", a.tokens, b.tokens))
    if a.trained_tokens is not None:
        rows.append(("trained tokens", a.trained_tokens, b.trained_tokens))
        rows.append(("trained share", *(f"{(side.trained_tokens or 0) / max(1, side.tokens):.1%}" for side in (a, b))))
    rows.append(("packed", *("yes" if side.packed else "no" for side in (a, b))))
    return rows


def _split_lines(found: Comparison) -> list[tuple[Cell, ...]]:
    lines: list[tuple[Cell, ...]] = [(split.name, *count_cells(split.counts)) for split in found.splits]
    return [*lines, ("all", *count_cells(found.counts))] if len(lines) > 1 else lines


def _setting(setting: SettingDifference) -> SettingView:
    return SettingView(setting.key, _value(setting.a), _value(setting.b), setting.details[:_MAX_DETAILS])


def _value(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]} … ({len(text):,} characters)"


def _looks(bubbles: Sequence[Bubble]) -> set[str]:
    """Return the classes that tokens of the page have; its legend explains these."""
    return {name for style in {style for bubble in bubbles for style in bubble.styles} for name in style.split()}
