"""Every row of a set of shards checked, whoever made them: the audit, from Parquet."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sftkit.audit.checks import check
from sftkit.audit.duplicates import Digests, digests_of, repeated
from sftkit.audit.findings import COLUMNS_MISFIT, DUPLICATE_ROW, EXAMPLES, PROMPT_MISMATCH, Finding
from sftkit.audit.norms import Norms
from sftkit.audit.tally import Count, findings_of, merged
from sftkit.config.schema import InspectConfig
from sftkit.inspection.columns import Layout, layout_of, row_groups, row_lengths, tokens_of
from sftkit.inspection.norms import source_of
from sftkit.inspection.summary import shard_label
from sftkit.progress import Progress, shown
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import ShardSet, open_parquet

_THREADS = min(8, os.cpu_count() or 1)
_TOKENS_AT_ONCE = 1 << 18  # what a processor's cache holds, with what is made of it


@dataclass(frozen=True)
class Audit:
    """What is wrong with the rows of some shards.

    rows: how many were checked. findings: examples are `shard:row`, the row counted within the file, from 0. notes:
    what could not be checked, and why.
    """

    rows: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def audit_shards(config: InspectConfig, shards: ShardSet, fields: Sequence[str], progress: Progress) -> Audit:
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
    layouts = [layout_of(path, fields) for paths in shards.splits.values() for path in paths]
    tokens = [layout for layout in layouts if layout.tokens]
    notes = []
    if len(tokens) < len(layouts):
        notes.append("rows of text hold no tokens yet: they are not audited")
    if not tokens:
        return Audit(0, (), tuple(notes))
    if any(not layout.supervision for layout in tokens):
        notes.append("there are no labels: what depends on the loss was not checked")
    source = source_of(config, shards.manifest)
    norms = source.norms()
    notes += [*source.notes, *source.differing_template()]
    if source.tokenizer is None:
        notes.append("without a tokenizer neither special tokens nor prompts, ids and stop tokens could be checked")
    rows = [_rows_of(layout.path) for layout in tokens]
    lock = threading.Lock()

    def checked(layout: Layout) -> tuple[dict[str, Count], Digests]:
        return _shard(layout, shard_label(layout.path, shards.root), norms, progress, lock)

    with shown(progress, "auditing", sum(rows)), ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(checked, tokens))
    counts = merged([part for part, _ in parts])
    names = [shard_label(layout.path, shards.root) for layout in tokens]
    copies, note = _copies(names, [digests for _, digests in parts], _repeated_on_purpose(shards.manifest))
    findings = findings_of({**counts, **_found_by_rendering(shards.manifest, counts), DUPLICATE_ROW: copies})
    return Audit(sum(rows), findings, (*notes, *note))


def _found_by_rendering(manifest: Manifest | None, counts: Mapping[str, Count]) -> dict[str, Count]:
    """Prompts that `preprocess` found to differ by rendering them, which tokens alone may not show."""
    made = manifest.audit.findings if manifest is not None and manifest.audit is not None else ()
    return {
        each.rule: Count(each.rows, each.examples)
        for each in made
        if each.rule == PROMPT_MISMATCH and (each.rule not in counts or counts[each.rule].rows < each.rows)
    }


def _shard(
    layout: Layout, name: str, norms: Norms, progress: Progress, lock: threading.Lock
) -> tuple[dict[str, Count], Digests]:
    """What is wrong with the rows of one file, and a digest of each."""
    parts: list[dict[str, Count]] = []
    digests: list[Digests] = [np.zeros(0, np.uint64)]
    done = 0
    for group in row_groups(layout):
        lengths = row_lengths(group, layout)
        for start, stop in _cuts(np.cumsum(lengths)):
            tokens = tokens_of(group.slice(start, stop - start), layout)
            found = check(tokens.ids, tokens.labels, tokens.trained, norms, tokens.seq_lengths)
            faulty = {rule: np.unique(fault.rows) for rule, fault in found.items()}
            faulty[COLUMNS_MISFIT] = np.flatnonzero(tokens.misfits)
            counted = {}
            for rule, rows in faulty.items():
                first = (rows[:EXAMPLES] + done).tolist()
                counted[rule] = Count(len(rows), tuple(f"{name}:{row}" for row in first))
            parts.append(counted)
            digests.append(digests_of(tokens.ids))
            done += stop - start
            with lock:
                progress.advance(stop - start, rows=stop - start, tokens=len(tokens.ids.values))
    return merged(parts), np.concatenate(digests)


def _cuts(ends: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[tuple[int, int]]:
    """Rows [start, stop) that are checked at once; `ends` are the running sums of their tokens."""
    cuts, start = [], 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _TOKENS_AT_ONCE, side="right")))
        cuts.append((start, stop))
        start = stop
    return cuts


def _copies(names: Sequence[str], digests: Sequence[Digests], on_purpose: int) -> tuple[Count, list[str]]:
    """Rows that an earlier one equals, but for those that a mix repeats on purpose."""
    copies = repeated(np.concatenate(digests))
    if on_purpose:
        note = [f"the mix repeats {on_purpose:,} rows on purpose: so many copies are no finding"]
        copies = copies[: max(0, len(copies) - on_purpose)]
    else:
        note = []
    ends = np.cumsum([len(each) for each in digests])
    examples = []
    for row in copies[:EXAMPLES].tolist():
        place = int(np.searchsorted(ends, row, side="right"))
        examples.append(f"{names[place]}:{row - int(ends[place]) + len(digests[place])}")
    return Count(len(copies), tuple(examples)), note


def _repeated_on_purpose(manifest: Manifest | None) -> int:
    return manifest.rows_repeated if manifest is not None else 0


def _rows_of(path: Path) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)
