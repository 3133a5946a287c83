"""Every row of a set of shards checked, whoever made them: the audit, from Parquet."""

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
    PROMPT_MISMATCH,
    Finding,
    RuleCount,
    findings_of,
    merge_counts,
)
from sftkit.config.commands import InspectConfig
from sftkit.core.progress import Progress, progress_stage
from sftkit.inspection.audit.cross_shard_duplicates import DigestCollector, RowDigests, find_duplicates
from sftkit.inspection.audit.shard_origin import find_origin
from sftkit.inspection.parquet_columns import (
    ColumnLayout,
    TokenColumns,
    iter_row_groups,
    read_layout,
    row_lengths,
    row_reference,
    split_packing,
    token_columns,
)
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import ShardSet, open_parquet
from sftkit.storage.paths import AnyPath, relative_name

_THREADS = min(8, os.cpu_count() or 1)
_TOKENS_AT_ONCE = 1 << 18  # what a processor's cache holds, with what is made of it


@dataclass(frozen=True)
class ShardAudit:
    """What is wrong with the rows of some shards.

    rows: how many were checked. sequences: how many share them, one by one checked, where rows are packed; None where
    they are not. findings: examples are `shard:row`, the row counted within the file, from 0, and in packs
    `shard:row (sequence n)`, counted from 1. notes: what could not be checked, and why.
    """

    rows: int
    sequences: int | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Checked:
    """One shard. sequences: those of its packs, None where it has none."""

    sequences: int | None
    counts: dict[str, RuleCount]
    digested: RowDigests


def audit_shards(config: InspectConfig, shards: ShardSet, fields: Sequence[str], progress: Progress) -> ShardAudit:
    """Check every row of every split.

    Without a tokenizer (the one that the config names, or the manifest's) only what needs none is checked, and a note
    says so.

    Args:
        config: names tokenizer and chat template, where the manifest does not.
        shards: the files.
        fields: names that a text column may have.
        progress: is told of rows.

    Raises:
        SourceError: a file cannot be read.
        TokenizerError: the tokenizer that the config names cannot be loaded.
    """
    layouts = [(split, read_layout(path, fields)) for split, paths in shards.splits.items() for path in paths]
    tokens = [(split, layout) for split, layout in layouts if layout.tokens]
    notes = []
    if len(tokens) < len(layouts):
        notes.append("rows of text hold no tokens yet: they are not audited")
    if not tokens:
        return ShardAudit(0, None, (), tuple(notes))
    if any(not layout.supervision for _, layout in tokens):
        notes.append("there are no labels: what depends on the loss was not checked")
    source = find_origin(config, shards.manifest)
    norms = source.norms()
    notes += [*source.notes, *source.differing_template()]
    if source.tokenizer is None:
        notes.append("without a tokenizer neither special tokens nor prompts, ids and stop tokens could be checked")
    packings = {split: split_packing(shards.manifest, split) for split in shards.splits}
    if any(packings[split].wrapped for split, _ in tokens):
        notes.append("rows are wrapped: what is cut at the edges of packs is no finding, nor are copies there")
    on_purpose = _repeated_on_purpose(shards.manifest)
    if on_purpose:
        notes.append(f"the mix repeats {on_purpose:,} rows on purpose: so many copies are no finding")
    rows = sum(_rows_of(layout.path) for _, layout in tokens)
    lock = threading.Lock()

    def checked(part: tuple[str, ColumnLayout]) -> _Checked:
        split, layout = part
        return _shard(layout, relative_name(layout.path, shards.root), norms, packings[split], progress, lock)

    with progress_stage(progress, "auditing", rows), ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(checked, tokens))
    counts = merge_counts([part.counts for part in parts])
    copies = find_duplicates([part.digested for part in parts], on_purpose)
    findings = findings_of({**counts, **_found_by_rendering(shards.manifest, counts), DUPLICATE_ROW: copies})
    sequences = [part.sequences for part in parts if part.sequences is not None]
    return ShardAudit(rows, sum(sequences) if sequences else None, findings, tuple(notes))


def _found_by_rendering(manifest: Manifest | None, counts: Mapping[str, RuleCount]) -> dict[str, RuleCount]:
    """Prompts that `preprocess` found to differ by rendering them, which tokens alone may not show."""
    made = manifest.audit.findings if manifest is not None and manifest.audit is not None else ()
    return {
        each.rule: RuleCount(each.rows, each.examples)
        for each in made
        if each.rule == PROMPT_MISMATCH and (each.rule not in counts or counts[each.rule].rows < each.rows)
    }


def _shard(
    layout: ColumnLayout, name: str, norms: Expectations, packing: Packing, progress: Progress, lock: threading.Lock
) -> _Checked:
    """What is wrong with the rows of one file, and a digest of each."""
    parts: list[dict[str, RuleCount]] = []
    digesting = DigestCollector(name)
    done, sequences = 0, 0
    for group in iter_row_groups(layout):
        lengths = row_lengths(group, layout)
        for start, stop in _cuts(np.cumsum(lengths)):
            tokens = token_columns(group.slice(start, stop - start), layout)
            packs = tokens.packs(packing)
            found = _judged(check_rows(tokens.ids, tokens.labels, tokens.trained, norms, packs), tokens)
            parts.append({rule: _count(rule, fault, packs, name, done) for rule, fault in found.items()})
            digesting.add(tokens.ids, packs, done)
            done += stop - start
            sequences += len(packs) if packs is not None else 0
            with lock:
                progress.advance(stop - start, rows=stop - start, tokens=len(tokens.ids.values))
    return _Checked(sequences if layout.packed else None, merge_counts(parts), digesting.result())


def _judged(found: Faults, tokens: TokenColumns) -> Faults:
    """Faults of some rows, those of columns that do not fit in the place of what these would seem to break."""
    if not tokens.misfit.any():
        return found
    rows = np.flatnonzero(tokens.misfit)
    nothing = np.zeros(len(rows), np.int64)
    kept = {rule: each.keep(~tokens.misfit[each.rows]) if rule in LABEL_RULES else each for rule, each in found.items()}
    return {**kept, COLUMNS_MISMATCH: Fault(rows, rows, nothing, tokens.ids.lengths[rows])}


def _count(rule: str, fault: Fault, packs: PackBoundaries | None, shard: str, first: int) -> RuleCount:
    """Rows (of packs: sequences) that break a rule; `first` is the number of the first row within its file."""
    if packs is None or rule in PACK_RULES:
        rows = np.unique(fault.rows)
        return RuleCount(len(rows), tuple(row_reference(shard, first + row) for row in rows[:EXAMPLES].tolist()))
    broken = np.unique(fault.sequences)
    names = []
    for sequence in broken[:EXAMPLES].tolist():
        row = int(packs.rows[sequence])
        number = None if packs.mismatched[row] else int(packs.numbers[sequence])
        names.append(row_reference(shard, first + row, number))
    return RuleCount(len(broken), tuple(names))


def _cuts(ends: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[tuple[int, int]]:
    """Rows [start, stop) that are checked at once; `ends` are the running sums of their tokens."""
    cuts, start = [], 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _TOKENS_AT_ONCE, side="right")))
        cuts.append((start, stop))
        start = stop
    return cuts


def _repeated_on_purpose(manifest: Manifest | None) -> int:
    return manifest.rows_repeated if manifest is not None else 0


def _rows_of(path: AnyPath) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)
