"""Builds the manifest from the staged units and the written shards."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from sftkit import __version__
from sftkit.audit.checks.duplicates import repeated_rows
from sftkit.audit.findings import DUPLICATE_ROW, EXAMPLES, RuleCount, findings_of, merge_counts
from sftkit.config.fields import to_public_data
from sftkit.config.reading.interpolated import interpolated_values, replace_values
from sftkit.config.schema.shared_options import SECRET_KEYS
from sftkit.core.progress import sum_seconds
from sftkit.core.token_kinds import KIND_NUMBERS, TOKEN_KINDS
from sftkit.ordering.splitting import Indices
from sftkit.preprocessing.accounting.column_report import reported_columns
from sftkit.preprocessing.accounting.inference_accounts import inference_counts, is_inference_exact
from sftkit.preprocessing.accounting.mix_counts import MixCounts
from sftkit.preprocessing.accounting.row_counts import RowCounts
from sftkit.preprocessing.pack_overflow import PACKING
from sftkit.preprocessing.plan.plan import Plan
from sftkit.redaction import redact_url
from sftkit.shards.formats.output_formats import PARQUET
from sftkit.shards.manifest import AuditInfo, FindingInfo, FormatFile, Manifest, ShardInfo, SplitInfo, length_histogram
from sftkit.shards.source_info import SourceInfo
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.writing.row_gatherer import SequenceSelection
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.shards.writing.shard_writer import WrittenShard

_RECORDED_VERSIONS = ("datasets", "gigatoken", "jinja2", "numpy", "pyarrow", "tokenizers", "transformers")


def split_info(
    sequences: SequenceSelection, shards: Sequence[WrittenShard], layout: ShardLayout, pack_length: int | None
) -> SplitInfo:
    """Describe one split and its shards; the files are those of Parquet."""
    lengths = sequences.sizes.astype(np.int64)
    info = SplitInfo(
        rows=sum(shard.rows for shard in shards),
        tokens=sum(shard.tokens for shard in shards),
        trained_tokens=sum(shard.trained_tokens for shard in shards),
        length_min=int(lengths.min()),
        length_max=int(lengths.max()),
        length_histogram=length_histogram(lengths) if layout.text_column is None else {},
        shards=tuple(
            ShardInfo(file.file, shard.rows, shard.tokens, shard.trained_tokens, file.bytes, file.sha256)
            for shard in shards
            for file in shard.files.get(PARQUET, ())
        ),
    )
    if pack_length is None:
        return info
    fill_rate = round(info.tokens / (info.rows * pack_length), 4)
    info = replace(info, sequences=len(sequences), pack_length=pack_length, fill_rate=fill_rate)
    if layout.padding is None:
        return info
    return replace(info, padding_tokens=int(layout.padding.tokens(np.asarray(sequences.row_sizes, np.int64)).sum()))


def make_manifest(
    plan: Plan,
    staged: Sequence[StagedUnit],
    orders: Mapping[str, Indices],
    mix: Sequence[MixCounts],
    layout: ShardLayout,
    splits: Mapping[str, SplitInfo],
    formats: Mapping[str, tuple[FormatFile, ...]],
    seconds: Mapping[str, float],
) -> Manifest:
    """Build the manifest of a finished run."""
    counts = RowCounts.of(staged)
    values = interpolated_values(plan.config)
    is_written = np.zeros(sum(unit.rows for unit in staged), np.bool_)
    for rows in orders.values():
        is_written[rows] = True
    written, distinct = sum(map(len, orders.values())), int(np.count_nonzero(is_written))
    return Manifest(
        columns=tuple(layout.parquet_schema.names),
        text_column=layout.text_column,
        splits=splits,
        sources=_sources(plan, staged, mix),
        rows_read=counts.read,
        rows_written=written,
        rows_left_out=counts.kept - distinct,
        rows_repeated=written - distinct,
        dropped=counts.dropped,
        quarantined=counts.quarantined,
        tokenizer=plan.tokenizer and replace(plan.tokenizer, name=replace_values(plan.tokenizer.name, values)),
        engine=_engines(staged),
        fingerprint=plan.fingerprint,
        config=_public_config(plan),
        versions={
            "sftkit": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _RECORDED_VERSIONS},
        },
        seconds=_rounded({"plan": plan.seconds, **seconds}),
        worker_seconds=_rounded(sum_seconds(unit.seconds for unit in staged if not unit.reused)),
        rows_by_programs=sum(unit.rows_by_programs for unit in staged),
        audit=_audit(plan, staged),
        units=len(staged),
        units_found=sum(unit.reused for unit in staged),
        dropped_by_handler=counts.drops,
        quarantined_by_reason=counts.reasons,
        cuts=counts.cuts,
        not_rendered=counts.not_rendered,
        rows_added=counts.added,
        inference_exact=is_inference_exact(plan, staged, counts.cuts.rows),
        inference=inference_counts(staged),
        too_long_rows=_too_long_rows(staged),
        token_kinds=KIND_NUMBERS if TOKEN_KINDS in layout.token_columns else {},
        source_names=tuple(replace_values(each.name, values) for each in plan.recipe.datasets)
        if layout.unit_sources
        else (),
        sources_left_out=tuple(replace_values(redact_url(path), values) for path in plan.left_out),
        formats=formats,
        function_inputs={path: unit.inputs[path] for unit in staged for path in sorted(unit.inputs)},
    )


def _too_long_rows(staged: Sequence[StagedUnit]) -> dict[str, int]:
    """Count rows that were removed for their length, when they were staged or because they are longer than a pack."""
    rows: Counter[str] = Counter()
    for unit in staged:
        rows.update(unit.too_long)
        if unit.overflow_cuts is None:  # otherwise, long rows were removed for what a cut leaves of them
            for removal in unit.later_removals:
                if removal.step == PACKING:
                    rows.update(length_histogram(unit.sizes[removal.rows].astype(np.int64)))
    return {low: rows[low] for low in sorted(rows, key=int)}


def _public_config(plan: Plan) -> dict[str, Any]:
    """The resolved config of a run, without secrets."""
    datasets = [_public(to_public_data(dataset)) for dataset in plan.recipe.datasets]
    config = _public(to_public_data(plan.config))
    for key, usual in (("output_format", [PARQUET]), ("pad_seq_to_multiple", 1)):
        if config[key] == usual:
            del config[key]  # as in manifests of versions that write nothing but Parquet
    return {**config, "datasets": datasets}


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in SECRET_KEYS}


def _audit(plan: Plan, staged: Sequence[StagedUnit]) -> AuditInfo | None:
    """Combine the audits of all units; None if rows are text."""
    checked = [(unit, unit.audit) for unit in staged if unit.audit is not None and unit.audit.rows]
    if not checked:
        return None
    values = interpolated_values(plan.config)

    def place(unit: StagedUnit, number: int) -> str:
        path, row = plan.units[unit.number].locate(number, unit.rows_before)
        return f"{replace_values(path, values)}:{row}"

    parts = [
        {
            rule: RuleCount(rows, tuple(place(unit, number + unit.number_shift) for number in first))
            for rule, (rows, first) in audit.violations.items()
        }
        for unit, audit in checked
    ]
    ends = np.cumsum([audit.rows for _, audit in checked])
    used = np.arange(ends[-1])
    if plan.config.dataprocessor.deduplicate is not None:
        removed = [end - audit.rows + unit.rows_removed_later for end, (unit, audit) in zip(ends, checked, strict=True)]
        used = np.delete(used, np.concatenate(removed))
    copies = used[repeated_rows(np.concatenate([audit.digests for _, audit in checked])[used])]
    examples = []
    for row in copies[:EXAMPLES].tolist():
        index = int(np.searchsorted(ends, row, side="right"))
        unit, audit = checked[index]
        [number] = unit.row_numbers([row - int(ends[index]) + audit.rows])
        examples.append(place(unit, number))
    parts.append({DUPLICATE_ROW: RuleCount(len(copies), tuple(examples))})
    findings = [
        FindingInfo(each.rule, each.level, each.rows, each.examples) for each in findings_of(merge_counts(parts))
    ]
    return AuditInfo(sum(audit.rows for _, audit in checked), tuple(findings))


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def _engines(staged: Sequence[StagedUnit]) -> dict[str, str]:
    """Name the engines that were used for each kind of work; reused units may have used others than this run."""
    used = sorted({pair for unit in staged for pair in unit.engines.items()})
    return {engine: ", ".join(name for each, name in used if each == engine) for engine, _ in used}


def _sources(plan: Plan, staged: Sequence[StagedUnit], mix: Sequence[MixCounts]) -> tuple[SourceInfo, ...]:
    found: dict[int, list[RowCounts]] = {id(file.file): [] for file in plan.files}  # a path may be given twice
    for unit in staged:
        for each, part_counts in zip(plan.units[unit.number].parts, RowCounts.per_file(unit), strict=True):
            found[id(each.file)].append(part_counts)
    values = interpolated_values(plan.config)
    sources = []
    for file, mixed in zip(plan.files, mix, strict=True):
        counts = RowCounts.total(found[id(file.file)])
        source = SourceInfo(
            dataset=replace_values(file.file.dataset, values),
            path=replace_values(file.file.name, values),
            bytes=file.file.size,
            sha256=file.sha256,
            rows_read=counts.read,
            rows_kept=counts.kept,
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            dropped_by_handler=counts.drops,
            quarantined_by_reason=counts.reasons,
            cuts=counts.cuts,
            not_rendered=counts.not_rendered,
            rows_added=counts.added,
            columns_not_used=reported_columns(plan, file.file.dataset, counts.unused_columns),
            tokens_kept=mixed.tokens_kept,
            written=mixed.written,
            mix=mixed.mix,
        )
        sources.append(source)
    return tuple(sources)
