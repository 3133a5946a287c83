"""What came of every row: staged units and written shards -> the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from sftkit import __version__
from sftkit.audit.duplicates import repeated
from sftkit.audit.findings import DUPLICATE_ROW, EXAMPLES
from sftkit.audit.tally import Count, findings_of, merged
from sftkit.config.fields import plain
from sftkit.mixing import Indices
from sftkit.planning import Plan
from sftkit.rows import BadRow
from sftkit.shards.layout import Layout
from sftkit.shards.manifest import (
    AuditInfo,
    FindingInfo,
    Manifest,
    ShardInfo,
    SourceInfo,
    SplitInfo,
    length_histogram,
)
from sftkit.shards.sequences import Sequences
from sftkit.shards.staging import StagedUnit, row_numbers
from sftkit.timing import summed

_RECORDED_VERSIONS = ("datasets", "gigatoken", "jinja2", "minijinja", "numpy", "pyarrow", "tokenizers", "transformers")
_BAD_ROWS_SHOWN = 10


def split_info(sequences: Sequences, shards: Sequence[ShardInfo], layout: Layout, pack_length: int | None) -> SplitInfo:
    """The account of one split: what it holds, and the shards that were written of it."""
    lengths = sequences.sizes.astype(np.int64)
    info = SplitInfo(
        rows=sum(shard.rows for shard in shards),
        tokens=sum(shard.tokens for shard in shards),
        trained_tokens=sum(shard.trained_tokens for shard in shards),
        length_min=int(lengths.min()),
        length_max=int(lengths.max()),
        length_histogram=length_histogram(lengths) if layout.text_column is None else {},
        shards=tuple(shards),
    )
    if pack_length is None:
        return info
    fill_rate = round(info.tokens / (info.rows * pack_length), 4)
    return replace(info, sequences=len(sequences), pack_length=pack_length, fill_rate=fill_rate)


def make_manifest(
    plan: Plan,
    staged: Sequence[StagedUnit],
    orders: Mapping[str, Indices],
    layout: Layout,
    splits: Mapping[str, SplitInfo],
    seconds: Mapping[str, float],
) -> Manifest:
    """The manifest of a finished run."""
    written = np.concatenate([np.arange(0), *orders.values()])
    distinct = len(np.unique(written))
    kept = sum(unit.kept for unit in staged)
    dropped: Counter[str] = Counter()
    for unit in staged:
        dropped.update(unit.dropped)
    return Manifest(
        columns=tuple(layout.schema.names),
        text_column=layout.text_column,
        splits=splits,
        sources=_sources(plan, staged),
        rows_read=sum(unit.read for unit in staged),
        rows_written=len(written),
        rows_left_out=kept - distinct,
        rows_repeated=len(written) - distinct,
        dropped=dict(sorted(dropped.items())),
        quarantined=sum(len(unit.bad) for unit in staged),
        tokenizer=plan.tokenizer,
        engine=_engines(staged),
        fingerprint=plan.fingerprint,
        config={**plain(plan.config), "datasets": plain(plan.recipe.datasets)},
        versions={"sftkit": __version__, **{name: version(name) for name in _RECORDED_VERSIONS}},
        seconds=_rounded({"plan": plan.seconds, **seconds}),
        worker_seconds=_rounded(summed(unit.seconds for unit in staged if not unit.found)),
        audit=_audit(plan, staged),
        units=len(staged),
        units_found=sum(unit.found for unit in staged),
    )


def bad_rows_message(bad: Sequence[tuple[str, BadRow]], kept: int, limit: int, quarantine: str) -> str:
    """The error for too many bad rows: the first of them by `path:row`, and where all of them are.

    Where no row was kept and all fail for one reason, the config is at fault, and one sentence says it.
    """
    reasons = {row.reason for _, row in bad}
    if len(reasons) == 1 and len(bad) > _BAD_ROWS_SHOWN and not kept:
        path, first = bad[0]
        place = f"{path}:{first.number} is the first"
        return f"no row can be used, all {len(bad)} of them for one reason: {first.reason} ({place})"
    allowed = "" if limit == 0 else f", more than max_bad_rows={limit}"
    lines = [f"{len(bad)} row{'s' if len(bad) > 1 else ''} cannot be used{allowed}:"]
    lines += [f"  {path}:{row.number}: {row.reason}" for path, row in bad[:_BAD_ROWS_SHOWN]]
    if len(bad) > _BAD_ROWS_SHOWN:
        lines.append(f"  ... and {len(bad) - _BAD_ROWS_SHOWN} more")
    lines.append(f"All of them are in {quarantine}; mend them, or allow for them with max_bad_rows={len(bad)}.")
    return "\n".join(lines)


def empty_message(staged: Sequence[StagedUnit], where: str) -> str:
    """The error for a data set of which no row is left."""
    read = sum(unit.read for unit in staged)
    if not read:
        return f"{where}: holds no rows"
    dropped: Counter[str] = Counter()
    for unit in staged:
        dropped.update(unit.dropped)
    gone = [f"{count} dropped ({reason})" for reason, count in dropped.most_common()]
    bad = [row for unit in staged for row in unit.bad]
    gone += [f"{len(bad)} quarantined (the first is row {bad[0].number}: {bad[0].reason})"] if bad else []
    return f"{where}: no rows left of {read} read: {', '.join(gone)}"


def _audit(plan: Plan, staged: Sequence[StagedUnit]) -> AuditInfo | None:
    """What the audit found in all units together; None where rows are text."""
    checked = [(unit, unit.audit) for unit in staged if unit.audit is not None and unit.audit.rows]
    if not checked:
        return None
    paths = {unit.number: file.file.path for file in plan.files for unit in file.units}
    parts = [
        {
            rule: Count(rows, tuple(f"{paths[unit.number]}:{number}" for number in first))
            for rule, (rows, first) in audit.faulty.items()
        }
        for unit, audit in checked
    ]
    copies = repeated(np.concatenate([audit.digests for _, audit in checked]))
    ends = np.cumsum([audit.rows for _, audit in checked])
    examples = []
    for row in copies[:EXAMPLES].tolist():
        place = int(np.searchsorted(ends, row, side="right"))
        unit, audit = checked[place]
        [number] = row_numbers(unit.path, [row - int(ends[place]) + audit.rows])
        examples.append(f"{paths[unit.number]}:{number}")
    parts.append({DUPLICATE_ROW: Count(len(copies), tuple(examples))})
    findings = [FindingInfo(each.rule, each.level, each.rows, each.examples) for each in findings_of(merged(parts))]
    return AuditInfo(sum(audit.rows for _, audit in checked), tuple(findings))


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def _engines(staged: Sequence[StagedUnit]) -> dict[str, str]:
    """Who did what, of the work there was. Units that were found may have been made by others."""
    made = sorted({pair for unit in staged for pair in unit.engines.items()})
    return {engine: ", ".join(name for each, name in made if each == engine) for engine, _ in made}


def _sources(plan: Plan, staged: Sequence[StagedUnit]) -> tuple[SourceInfo, ...]:
    by_number = {unit.number: unit for unit in staged}
    sources = []
    for file in plan.files:
        units = [by_number[unit.number] for unit in file.units]
        dropped: Counter[str] = Counter()
        for unit in units:
            dropped.update(unit.dropped)
        source = SourceInfo(
            dataset=file.file.dataset,
            path=file.file.path,
            bytes=file.file.size,
            sha256=file.sha256,
            rows_read=sum(unit.read for unit in units),
            rows_kept=sum(unit.kept for unit in units),
            dropped=dict(sorted(dropped.items())),
            quarantined=sum(len(unit.bad) for unit in units),
        )
        accounted = source.rows_kept + sum(dropped.values()) + source.quarantined
        assert source.rows_read == accounted, f"{source.path}: {source.rows_read} rows read, {accounted} accounted for"
        sources.append(source)
    return tuple(sources)
