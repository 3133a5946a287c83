"""Checks every row of a set of shards against the rules of the audit."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sftkit.audit.checks.packs import PackBoundaries, Packing
from sftkit.audit.checks.row_checks import Fault, Faults, check_rows
from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.findings import (
    COLUMNS_MISMATCH,
    DUPLICATE_ROW,
    EXAMPLES,
    LABEL_RULES,
    PACK_RULES,
    RECORDED_RULES,
    Finding,
    RuleCount,
    findings_of,
    merge_counts,
)
from sftkit.config.commands import InspectConfig
from sftkit.core.progress import Progress, progress_stage
from sftkit.core.rows import Offsets
from sftkit.inspection.audit.cross_shard_duplicates import DigestCollector, RowDigests, find_duplicates
from sftkit.inspection.audit.inference.audit_inference import InferenceAudit, InferenceInput, audit_inference
from sftkit.inspection.audit.retained_tools import check_retained_tools
from sftkit.inspection.audit.shard_origin import find_origin
from sftkit.inspection.columns.column_layout import ColumnLayout, iter_row_groups, read_layout
from sftkit.inspection.columns.text_columns import row_reference
from sftkit.inspection.columns.token_values import TokenColumns, row_lengths, split_packing, token_columns
from sftkit.shards.manifest import Manifest
from sftkit.shards.readers.open_file import open_shard_file
from sftkit.shards.reading import ShardSet
from sftkit.storage.paths import AnyPath, relative_name

_THREADS = min(8, os.cpu_count() or 1)
_BATCH_TOKENS = 1 << 18  # a batch and what is derived from it fit the processor's cache


@dataclass(frozen=True)
class ShardAudit:
    """The result of an audit.

    A finding counts the rows that break a rule. In packs each sequence is checked like a row, and a finding counts
    sequences, except for the rules about a whole pack. Examples are `shard:row`, or `shard:row (sequence n)` in packs:
    the row counts from 0 within the file, the sequence from 1 within the pack.
    """

    rows: int
    """Rows that were checked."""
    sequences: int | None
    """Sequences that were checked; None where rows are not packed."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What could not be checked, and why."""
    inference: InferenceAudit | None = None
    """How rows compare with the tokens of inference; None where no row is known to be a conversation."""


@dataclass(frozen=True)
class _CheckedShard:
    sequences: int | None
    """Sequences in its packs, None where rows are not packed."""
    counts: dict[str, RuleCount]
    """Rule -> rows or sequences that break it."""
    digests: RowDigests


def audit_shards(config: InspectConfig, shards: ShardSet, fields: Sequence[str], progress: Progress) -> ShardAudit:
    """Check every row of every split.

    The shards may come from any tool. What a correct row looks like is learned from the tokenizer, its chat template
    and the config that made the rows: those in `config`, or else those in the manifest. Without a tokenizer, rules that
    need one are skipped, and a note says so. Files are checked in parallel, in batches of about 2^18 tokens; identical
    rows are found by hashes over all shards.

    Args:
        config: names the tokenizer and chat template, if they are not to be the manifest's.
        shards: the files to check.
        fields: names that a text column may have.
        progress: receives rows and tokens.

    Raises:
        SourceError: a file cannot be read.
        TokenizerError: the tokenizer that the config names cannot be loaded.
    """
    layouts = [(split, read_layout(path, fields)) for split, paths in shards.splits.items() for path in paths]
    tokens = [(split, layout) for split, layout in layouts if layout.tokens]
    notes = []
    if len(tokens) < len(layouts):
        notes.append("rows of text have no tokens yet and are not audited")
    if not tokens:
        return ShardAudit(0, None, (), tuple(notes))
    if any(not layout.supervision for _, layout in tokens):
        notes.append("there are no labels: rules about the loss were not checked")
    origin = find_origin(config, shards.manifest)
    expectations = origin.learn_expectations()
    notes += [*origin.notes, *origin.template_notes()]
    if origin.tokenizer is None:
        notes.append("without a tokenizer, special tokens, prompts, ids and stop tokens could not be checked")
    packings = {split: split_packing(shards.manifest, split) for split in shards.splits}
    cutting = next((packings[split] for split, _ in tokens if packings[split].may_cut_rows), None)
    if cutting is not None:
        notes.append(f"{cutting.which_rows_are_cut}: cuts there are not reported, nor are duplicates")
    repeated = shards.manifest.rows_repeated if shards.manifest is not None else 0
    if repeated:
        notes.append(f"the mix repeats {repeated:,} rows on purpose: that many duplicates are not reported")
    counted = [_row_count(layout.path) for _, layout in tokens]
    rows = sum(counted)
    lock = threading.Lock()

    def check(part: tuple[str, ColumnLayout]) -> _CheckedShard:
        split, layout = part
        name = relative_name(layout.path, shards.root)
        return _check_shard(layout, name, expectations, packings[split], progress, lock)

    with progress_stage(progress, "auditing", rows), ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(check, tokens))
    counts = merge_counts([part.counts for part in parts])
    duplicates = find_duplicates([part.digests for part in parts], repeated)
    files = [
        InferenceInput(layout, relative_name(layout.path, shards.root), packings[split], part.sequences or count, split)
        for (split, layout), part, count in zip(tokens, parts, counted, strict=True)
        if layout.supervision
    ]
    inference = audit_inference(files, origin, expectations.stops, progress)
    counts = {**counts, **_recorded(shards.manifest, counts), DUPLICATE_ROW: duplicates}
    findings = findings_of({**counts, **(inference.count if inference is not None else {})})
    sequences = [part.sequences for part in parts if part.sequences is not None]
    return ShardAudit(rows, sum(sequences) if sequences else None, findings, tuple(notes), inference)


def _recorded(manifest: Manifest | None, counts: Mapping[str, RuleCount]) -> dict[str, RuleCount]:
    """Return the findings in the manifest that only `preprocess` makes, where it found more rows."""
    recorded = manifest.audit.findings if manifest is not None and manifest.audit is not None else ()
    return {
        finding.rule: RuleCount(finding.rows, finding.examples)
        for finding in recorded
        if finding.rule in RECORDED_RULES and (finding.rule not in counts or counts[finding.rule].rows < finding.rows)
    }


def _check_shard(
    layout: ColumnLayout,
    name: str,
    expectations: Expectations,
    packing: Packing,
    progress: Progress,
    lock: threading.Lock,
) -> _CheckedShard:
    parts: list[dict[str, RuleCount]] = [check_retained_tools(layout, name)]
    digests = DigestCollector(name)
    done, sequences = 0, 0
    for group in iter_row_groups(layout):
        lengths = row_lengths(group, layout)
        for start, stop in _batches(np.cumsum(lengths)):
            tokens = token_columns(group.slice(start, stop - start), layout)
            packs = tokens.packs(packing)
            faults = check_rows(tokens.ids, tokens.labels, tokens.trained, expectations, packs)
            faults = _with_length_mismatches(faults, tokens)
            parts.append({rule: _count(rule, fault, packs, name, done) for rule, fault in faults.items()})
            digests.add(tokens.ids, packs, done)
            done += stop - start
            sequences += len(packs) if packs is not None else 0
            with lock:
                progress.advance(stop - start, rows=stop - start, tokens=len(tokens.ids.values))
    return _CheckedShard(sequences if layout.packed else None, merge_counts(parts), digests.result())


def _with_length_mismatches(faults: Faults, tokens: TokenColumns) -> Faults:
    """Replace the faults about labels in rows whose columns differ in length by that fault."""
    if not tokens.length_mismatch.any():
        return faults
    rows = np.flatnonzero(tokens.length_mismatch)
    starts = np.zeros(len(rows), np.int64)
    kept = {
        rule: fault.keep(~tokens.length_mismatch[fault.rows]) if rule in LABEL_RULES else fault
        for rule, fault in faults.items()
    }
    return {**kept, COLUMNS_MISMATCH: Fault(rows, rows, starts, tokens.ids.lengths[rows])}


def _count(rule: str, fault: Fault, packs: PackBoundaries | None, shard: str, first: int) -> RuleCount:
    """Count the rows (in packs, the sequences) that break a rule; `first` is the index of the first row in the file."""
    if packs is None or rule in PACK_RULES:
        rows = np.unique(fault.rows)
        return RuleCount(len(rows), tuple(row_reference(shard, first + row) for row in rows[:EXAMPLES].tolist()))
    broken = np.unique(fault.sequences)
    examples = []
    for sequence in broken[:EXAMPLES].tolist():
        row = int(packs.rows[sequence])
        number = None if packs.mismatched[row] else int(packs.numbers[sequence])
        examples.append(row_reference(shard, first + row, number))
    return RuleCount(len(broken), tuple(examples))


def _batches(ends: Offsets) -> list[tuple[int, int]]:
    """Return row ranges [start, stop) to check at once, given the cumulative tokens of the rows, shape (rows,)."""
    batches, start = [], 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BATCH_TOKENS, side="right")))
        batches.append((start, stop))
        start = stop
    return batches


def _row_count(path: AnyPath) -> int:
    with open_shard_file(path) as file:
        return file.rows
