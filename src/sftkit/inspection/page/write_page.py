"""Makes a page of a report, and writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from sftkit.audit.findings import RULES
from sftkit.config.commands import InspectConfig
from sftkit.config.fields import to_public_data
from sftkit.config.schema.shared_options import SECRET_KEYS
from sftkit.inspection.audit.shard_origin import find_origin
from sftkit.inspection.columns.text_columns import row_reference
from sftkit.inspection.page.bubbles import Bubble, RowView, row_view
from sftkit.inspection.page.facts import (
    finding_views,
    identity_facts,
    length_limit,
    number_lines,
    row_balance,
    step_table,
)
from sftkit.inspection.page.measurements import Measurements, measure
from sftkit.inspection.page.page_file import MAX_BYTES, save_page
from sftkit.inspection.page.pictures.picture import Picture
from sftkit.inspection.page.pictures.source_pictures import source_picture
from sftkit.inspection.page.pictures.split_pictures import split_pictures
from sftkit.inspection.page.removals import Removals, removals_of
from sftkit.inspection.page.render import render_page
from sftkit.inspection.page.row_candidates import DRAWN
from sftkit.inspection.page.sampled_rows import choose_rows, read_sample
from sftkit.inspection.page.token_data import token_data
from sftkit.inspection.page.too_long import too_long_rows
from sftkit.inspection.report import Report
from sftkit.inspection.summary.consistency import manifest_notes
from sftkit.inspection.summary.summarize import text_column_names
from sftkit.inspection.view.decoding import TokenDecoder
from sftkit.inspection.view.selection import filter_shards
from sftkit.shards.reading import ShardSet
from sftkit.storage.files import file_size

_MAX_TEMPLATE, _MAX_CONFIG, _MAX_SHARDS, _MAX_NOTES = 200_000, 100_000, 200, 30
_ROWS_AT_ONCE = 4  # of up to 2^18 tokens each


@dataclass(frozen=True)
class _Sources:
    """The texts that a page shows folded."""

    template: str | None
    config: str


def write_page(config: InspectConfig, shards: ShardSet, report: Report) -> int:
    """Write the page that `config.report` names, and return its size in bytes.

    Args:
        config: names the file, the number of rows and the seed of the sample.
        shards: what the report is about.
        report: with an audit.

    Raises:
        SourceError: a file cannot be read.
        PageError: the page cannot be written.
    """
    return save_page(config, make_page(config, shards, report), report)


def make_page(config: InspectConfig, shards: ShardSet, report: Report) -> str:
    """Return the HTML of a report, at most `MAX_BYTES` long. The arguments are those of `write_page`."""
    filtered = filter_shards(shards, config.split, config.shard)
    summary, audit = report.summary, report.audit
    assert audit is not None
    fields = text_column_names(shards, config.dataset_text_field)
    origin = find_origin(config, shards.manifest)
    expectations = origin.learn_expectations()
    made_by = shards.manifest.config if shards.manifest is not None else _public(config)
    pack_lengths = {split.name: split.packs.pack_length for split in summary.splits if split.packs is not None}
    seed = config.seed or 0
    measurements = measure(filtered, fields, expectations, pack_lengths, seed)
    views: list[RowView] = []
    if config.report_rows:
        decoder = TokenDecoder(origin.tokenizer) if origin.tokenizer is not None else None
        chosen = choose_rows(filtered, measurements, audit.findings, config.report_rows)
        for start in range(0, len(chosen), _ROWS_AT_ONCE):
            part = chosen[start : start + _ROWS_AT_ONCE]
            sampled = read_sample(part, shards, decoder, expectations if decoder is not None else None, fields)
            views += map(row_view, sampled)
    template = getattr(origin.tokenizer, "chat_template", None)
    sources = _Sources(template if isinstance(template, str) else None, _yaml(made_by))
    removals = Removals()
    if shards.manifest is not None:
        folder = shards.root.parent if file_size(shards.root) >= 0 else shards.root
        removals = removals_of(shards.manifest, folder, with_examples=bool(config.report_rows))
    pictures = _pictures(report, measurements, length_limit(made_by))
    wanted = len(views)
    while True:
        page = _render(config, report, pictures, views, wanted - len(views), removals, sources)
        if len(page.encode()) <= MAX_BYTES or not views:
            return page
        views = _fewer(views)


def _fewer(views: Sequence[RowView]) -> list[RowView]:
    """Leave out a third of the rows that were drawn at random; without any, of all rows."""
    drawn = [view for view in views if view.reasons == (DRAWN,)] or views
    left_out = {view.key for view in drawn[len(drawn) * 2 // 3 :]}
    return [view for view in views if view.key not in left_out]


def _pictures(report: Report, measurements: Measurements, limit: int | None) -> list[tuple[str, list[Picture]]]:
    """Return the pictures of each split that has rows, and of the sources."""
    manifest = report.summary.origin
    too_long = too_long_rows(manifest)
    found = [
        # The first one stands for all: rows that are too long were removed before there were splits.
        (split.name, split_pictures(split, measurements.splits[split.name], limit, None if number else too_long))
        for number, split in enumerate(each for each in report.summary.splits if each.rows)
    ]
    sources = source_picture(manifest) if manifest is not None else None
    if sources is not None and found:
        found[0] = (found[0][0], [*found[0][1], sources])
    return found


def _render(
    config: InspectConfig,
    report: Report,
    pictures: Sequence[tuple[str, list[Picture]]],
    views: Sequence[RowView],
    left_out: int,
    removals: Removals,
    sources: _Sources,
) -> str:
    summary, audit = report.summary, report.audit
    assert audit is not None
    shards = [shard for split in summary.splits for shard in split.shards]
    mismatches = manifest_notes(summary.splits, summary.origin)
    notes = [note for note in dict.fromkeys((*summary.notes, *report.notes, *audit.notes)) if note not in mismatches]
    first = next(split for split in summary.splits if split.rows)
    return render_page(
        "report.html.jinja",
        name=summary.location,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        summary=summary,
        audit=audit,
        findings=finding_views(audit),
        rules=RULES,
        targets=_targets(views),
        preview=summary.origin is None and not config.directory,
        mismatches=mismatches,
        notes=notes[:_MAX_NOTES],
        more_notes=len(notes[_MAX_NOTES:]),
        lines=number_lines(summary.splits),
        first=first,
        steps=step_table(first),
        facts=identity_facts(summary),
        pictures=pictures,
        shards=shards[:_MAX_SHARDS],
        more_shards=len(shards[_MAX_SHARDS:]),
        balance=row_balance(summary.origin) if summary.origin is not None else [],
        removals=removals,
        rows=views,
        left_out=left_out,
        reasons=_reasons(views),
        found_rows={finding.rule: finding.rows for finding in audit.findings},
        looks=_looks(views),
        tokens=token_data({view.key: view.bubbles for view in views}),
        seed=config.seed or 0,
        wants_rows=bool(config.report_rows),
        template=sources.template[:_MAX_TEMPLATE] if sources.template is not None else None,
        config=sources.config[:_MAX_CONFIG],
        config_cut=len(sources.config) > _MAX_CONFIG,
    )


def _targets(views: Sequence[RowView]) -> dict[str, str]:
    """Return the ids of rows by their names in findings."""
    found = {row_reference(view.row.shard, view.row.shard_row): view.key for view in views}
    for view in views:
        for number in range(len(view.row.seq_lengths)):
            found[row_reference(view.row.shard, view.row.shard_row, number)] = view.key
    return found


def _reasons(views: Sequence[RowView]) -> dict[str, int]:
    """Return how many of the rows that are shown have each chip, rules of the audit first."""
    counts = Counter(chip for view in views for chip in view.chips)
    return {**{rule: counts[rule] for rule in RULES if rule in counts}, **counts}


def _looks(views: Sequence[RowView]) -> set[str]:
    """Return the classes that tokens of the page have; its legend explains these."""
    blocks = [block for view in views for block in view.blocks if isinstance(block, Bubble)]
    return {name for style in {style for block in blocks for style in block.styles} for name in style.split()}


def _public(config: InspectConfig) -> dict[str, Any]:
    """Return what of a config says how rows are made, without secrets."""
    preview = {"directory", "rows", "row", "shard", "split", "seed", "verify", "search", "show_whitespace"}
    hidden = preview | {"format", "audit", "fail_on", "report", "report_rows"} | set(SECRET_KEYS)
    return {key: value for key, value in to_public_data(config).items() if key not in hidden}


def _yaml(config: Mapping[str, Any]) -> str:
    """Write a config without the keys that are not set."""
    text: str = yaml.safe_dump(_filled(config), sort_keys=False, allow_unicode=True, width=100)
    return text


def _filled(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _filled(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None and item not in ({}, [])}
    if isinstance(value, list | tuple):
        return [_filled(item) for item in value]
    return value
