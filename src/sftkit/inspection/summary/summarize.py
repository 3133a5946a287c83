"""Shards -> their summary: every one of them is read once, in the columns that matter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from sftkit.audit.checks.packs import PackBoundaries, Packing
from sftkit.core.rows import Ragged
from sftkit.errors import SourceError
from sftkit.inspection.parquet_columns import (
    TEXT,
    ColumnLayout,
    iter_row_groups,
    read_layout,
    split_packing,
    text_lengths,
    token_columns,
)
from sftkit.inspection.summary.consistency import count_notes, manifest_notes
from sftkit.inspection.summary.dataset_summary import (
    DatasetOrigin,
    PackSummary,
    ShardSummary,
    SplitSummary,
    Summary,
    fraction,
)
from sftkit.inspection.summary.lengths import LengthCounter
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import ShardSet
from sftkit.storage.paths import AnyPath, relative_name

_THREADS = min(4, os.cpu_count() or 1)


def text_column_names(shards: ShardSet, chosen: str | None = None) -> tuple[str, ...]:
    """Names that a text column may have, the likeliest first."""
    made = shards.manifest.text_column if shards.manifest is not None else None
    return tuple(dict.fromkeys(name for name in (chosen, made, TEXT) if name))


def summarize(shards: ShardSet, text_field: str | None = None) -> Summary:
    """Count everything in a set of shards, one row group in memory at a time.

    Args:
        shards: the files; every one of them is read in full, the columns that matter only.
        text_field: the column that is the text, where there are no `input_ids`.

    Raises:
        SourceError: a file cannot be read, has no columns that we know, or there is not one row.
    """
    fields = text_column_names(shards, text_field)
    layouts = {split: [read_layout(path, fields) for path in paths] for split, paths in shards.splits.items()}
    every = [layout for files in layouts.values() for layout in files]
    splits = tuple(
        _split(name, files, shards.root, split_packing(shards.manifest, name)) for name, files in layouts.items()
    )
    if not any(split.rows for split in splits):
        raise SourceError(f"{shards.root}: holds no rows; columns there: {', '.join(every[0].names) or 'none'}")
    return Summary(
        location=shards.name or str(shards.root),
        columns=every[0].names,
        text_column=every[0].text,
        supervision=every[0].supervision,
        splits=splits,
        origin=_origin(shards.manifest) if shards.manifest is not None else None,
        notes=(*count_notes(splits, every), *manifest_notes(splits, shards.manifest)),
    )


@dataclass
class ShardCounts:
    """Running counts of a shard that only its split tells of. longest, sequences, most, misfit_packs: of packs, in
    tokens and sequences.
    """

    lengths: LengthCounter = field(default_factory=LengthCounter)
    wrong: int = 0
    misfit: int = 0
    packed_rows: int = 0
    packed_tokens: int = 0
    longest: int = 0
    sequences: int = 0
    most: int = 0
    misfit_packs: int = 0

    def add_packs(self, ids: Ragged, packs: PackBoundaries) -> None:
        """Count some packs."""
        self.packed_rows += len(ids)
        self.packed_tokens += len(ids.values)
        self.longest = max(self.longest, int(ids.lengths.max(initial=0)))
        self.sequences += len(packs)
        self.most = max(self.most, int(packs.numbers.max(initial=-1)) + 1)
        self.misfit_packs += int(np.count_nonzero(packs.mismatched))

    def merge(self, other: ShardCounts) -> None:
        """Count another shard too."""
        self.lengths.merge(other.lengths)
        for name in ("wrong", "misfit", "packed_rows", "packed_tokens", "sequences", "misfit_packs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest, self.most = max(self.longest, other.longest), max(self.most, other.most)


def _split(name: str, files: Sequence[ColumnLayout], root: AnyPath, packing: Packing) -> SplitSummary:
    # Arrow and numpy let go of the interpreter while they work; each thread holds one row group.
    with ThreadPoolExecutor(_THREADS) as pool:
        counted = list(pool.map(partial(count_shard, root=root, packing=packing), files))
    shards = tuple(shard for shard, _ in counted)
    counts = ShardCounts()
    for _, part in counted:
        counts.merge(part)
    tokens, trained = _sum([s.tokens for s in shards]), _sum([s.trained_tokens for s in shards])
    return SplitSummary(
        name=name,
        rows=sum(shard.rows for shard in shards),
        tokens=tokens,
        trained_tokens=trained,
        trained_share=fraction(trained, tokens),
        characters=_sum([shard.characters for shard in shards]),
        packs=_packs(counts, packing) if any(layout.packed for layout in files) else None,
        lengths=counts.lengths.result(),
        wrong_labels=counts.wrong,
        misfit_rows=counts.misfit,
        shards=shards,
    )


def _packs(counts: ShardCounts, packing: Packing) -> PackSummary:
    length = packing.length or counts.longest
    rows = max(1, counts.packed_rows)
    return PackSummary(
        sequences=counts.sequences,
        sequences_mean=round(counts.sequences / rows, 2),
        sequences_max=counts.most,
        pack_length=length,
        fill_rate=fraction(counts.packed_tokens, rows * length) or 0.0,
        misfit=counts.misfit_packs,
    )


def count_shard(layout: ColumnLayout, root: AnyPath, packing: Packing) -> tuple[ShardSummary, ShardCounts]:
    """Count one file: what it holds, and what only its split tells of.

    Raises:
        SourceError: it cannot be read.
    """
    counts = ShardCounts()
    known = layout.tokens and bool(layout.supervision)
    total = ShardSummary(
        file=relative_name(layout.path, root),
        rows=0,
        tokens=0 if layout.tokens else None,
        trained_tokens=0 if known else None,
        characters=None if layout.tokens else 0,
    )
    for table in iter_row_groups(layout):
        total = replace(total, rows=total.rows + table.num_rows)
        if not layout.tokens:
            lengths = text_lengths(table, layout)
            counts.lengths.add(lengths)
            total = replace(total, characters=(total.characters or 0) + int(lengths.sum()))
            continue
        tokens = token_columns(table, layout)
        packs = tokens.packs(packing)
        counts.lengths.add(tokens.ids.lengths if packs is None else np.diff(packs.offsets))
        counts.misfit += int(np.count_nonzero(tokens.misfit))
        counts.wrong += int(np.count_nonzero(tokens.wrong))
        if packs is not None:
            counts.add_packs(tokens.ids, packs)
        total = replace(total, tokens=(total.tokens or 0) + len(tokens.ids.values))
        if tokens.trained is not None:
            total = replace(total, trained_tokens=(total.trained_tokens or 0) + int(np.count_nonzero(tokens.trained)))
    return total, counts


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _origin(manifest: Manifest) -> DatasetOrigin:
    return DatasetOrigin(
        tokenizer=manifest.tokenizer,
        engine=manifest.engine,
        sources=manifest.sources,
        rows_read=manifest.rows_read,
        rows_written=manifest.rows_written,
        rows_left_out=manifest.rows_left_out,
        rows_repeated=manifest.rows_repeated,
        dropped=manifest.dropped,
        quarantined=manifest.quarantined,
        fingerprint=manifest.fingerprint,
        versions=manifest.versions,
    )
