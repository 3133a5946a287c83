"""Summarizes shards. Every file is read once, in the columns that matter, one row group in memory at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from sftkit.audit.checks.packs import PackBoundaries, Packing
from sftkit.core.rows import Ids, Mask, Offsets, Ragged
from sftkit.core.token_kinds import TRAINED_KINDS, TokenKind
from sftkit.errors import SourceError
from sftkit.inspection.columns.column_layout import TEXT, ColumnLayout, iter_row_groups, read_layout
from sftkit.inspection.columns.text_columns import text_lengths
from sftkit.inspection.columns.token_values import TokenColumns, split_packing, token_columns
from sftkit.inspection.summary.consistency import count_notes, manifest_notes
from sftkit.inspection.summary.dataset_summary import (
    PackSummary,
    ShardSummary,
    SourceCounts,
    SplitSummary,
    Summary,
    fraction,
    source_name,
)
from sftkit.inspection.summary.lengths import LengthCounter
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import ShardSet
from sftkit.storage.paths import AnyPath, relative_name

_THREADS = min(4, os.cpu_count() or 1)


def text_column_names(shards: ShardSet, chosen: str | None = None) -> tuple[str, ...]:
    """Return the names that a text column may have, the most likely first."""
    recorded = shards.manifest.text_column if shards.manifest is not None else None
    return tuple(dict.fromkeys(name for name in (chosen, recorded, TEXT) if name))


def summarize(shards: ShardSet, text_field: str | None = None) -> Summary:
    """Count everything in a set of shards.

    Args:
        shards: the files to read.
        text_field: the text column, where there are no `input_ids`.

    Raises:
        SourceError: a file cannot be read or has neither `input_ids` nor a text column, or there are no rows at all.
    """
    names = text_column_names(shards, text_field)
    layouts = {split: [read_layout(path, names) for path in paths] for split, paths in shards.splits.items()}
    every = [layout for files in layouts.values() for layout in files]
    splits = tuple(_summarize_split(name, files, shards.root, shards.manifest) for name, files in layouts.items())
    if not any(split.rows for split in splits):
        raise SourceError(f"{shards.root}: holds no rows; columns there: {', '.join(every[0].names) or 'none'}")
    return Summary(
        location=shards.name or str(shards.root),
        columns=every[0].names,
        text_column=every[0].text,
        supervision=every[0].supervision,
        splits=splits,
        origin=shards.manifest,
        notes=(*count_notes(splits, every), *manifest_notes(splits, shards.manifest)),
    )


@dataclass
class ShardCounts:
    """Running counts of a shard that are reported for its split only."""

    lengths: LengthCounter = field(default_factory=LengthCounter)
    trained_by_kind: Counter[TokenKind] = field(default_factory=Counter)
    """Trained tokens by kind; empty without a column `token_kinds`."""
    by_source: dict[int, SourceCounts] = field(default_factory=dict)
    """Counts by the number of the data set; empty without a column `source`."""
    wrong_weights: int = 0
    """Tokens that carry a loss and have no weight, or the other way round."""
    wrong_labels: int = 0
    """Trained tokens whose label differs from their id."""
    mismatched_rows: int = 0
    """Rows whose columns differ in length."""
    packed_rows: int = 0
    packed_tokens: int = 0
    longest_pack: int = 0
    """Tokens of the longest pack."""
    sequences: int = 0
    """Sequences in all packs."""
    most_sequences: int = 0
    """The most sequences in one pack."""
    mismatched_packs: int = 0
    """Packs whose `seq_lengths` do not match their tokens."""

    def add_packs(self, ids: Ragged, packs: PackBoundaries) -> None:
        """Count some packs."""
        self.packed_rows += len(ids)
        self.packed_tokens += len(ids.values)
        self.longest_pack = max(self.longest_pack, int(ids.lengths.max(initial=0)))
        self.sequences += len(packs)
        self.most_sequences = max(self.most_sequences, int(packs.numbers.max(initial=-1)) + 1)
        self.mismatched_packs += int(np.count_nonzero(packs.mismatched))

    def add_kinds(self, kinds: Ids, trained: Mask) -> None:
        """Count the kinds of some tokens, of those that are trained."""
        numbers = kinds[trained]
        self.trained_by_kind.update({kind: int(np.count_nonzero(numbers == kind)) for kind in TRAINED_KINDS})

    def add_sources(self, tokens: TokenColumns, offsets: Offsets) -> None:
        """Count sequences, which begin and end at some offsets, by their data sets."""
        if tokens.sources is None or len(tokens.sources.values) != len(offsets) - 1:
            return
        trained = np.zeros(len(tokens.ids.values), np.bool_) if tokens.trained is None else tokens.trained
        weights = trained if tokens.weights is None else tokens.weights
        for number in np.unique(tokens.sources.values).tolist():
            chosen = tokens.sources.values == number
            inside = np.repeat(chosen, np.diff(offsets))
            found = SourceCounts(
                int(np.count_nonzero(chosen)),
                int(np.count_nonzero(inside)),
                int(np.count_nonzero(trained & inside)),
                float(weights.sum(where=inside, dtype=np.float64)),
            )
            self._add_source(number, found)

    def _add_source(self, number: int, found: SourceCounts) -> None:
        known = self.by_source.get(number, SourceCounts(0, 0, 0, 0.0))
        self.by_source[number] = SourceCounts(
            known.sequences + found.sequences,
            known.tokens + found.tokens,
            known.trained_tokens + found.trained_tokens,
            known.loss_weight + found.loss_weight,
        )

    def merge(self, other: ShardCounts) -> None:
        """Add the counts of another shard."""
        self.lengths.merge(other.lengths)
        self.trained_by_kind.update(other.trained_by_kind)
        for number, found in other.by_source.items():
            self._add_source(number, found)
        self.wrong_weights += other.wrong_weights
        self.wrong_labels += other.wrong_labels
        self.mismatched_rows += other.mismatched_rows
        self.packed_rows += other.packed_rows
        self.packed_tokens += other.packed_tokens
        self.longest_pack = max(self.longest_pack, other.longest_pack)
        self.sequences += other.sequences
        self.most_sequences = max(self.most_sequences, other.most_sequences)
        self.mismatched_packs += other.mismatched_packs


def _summarize_split(
    name: str, files: Sequence[ColumnLayout], root: AnyPath, manifest: Manifest | None
) -> SplitSummary:
    packing = split_packing(manifest, name)
    # Arrow and numpy release the GIL; each thread holds one row group.
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
        packs=_summarize_packs(counts, packing) if any(layout.packed for layout in files) else None,
        lengths=counts.lengths.result(),
        wrong_labels=counts.wrong_labels,
        misfit_rows=counts.mismatched_rows,
        shards=shards,
        trained_by_kind={kind.label: count for kind, count in counts.trained_by_kind.items()} or None,
        by_source={source_name(number, manifest): counts.by_source[number] for number in sorted(counts.by_source)}
        or None,
    )


def _summarize_packs(counts: ShardCounts, packing: Packing) -> PackSummary:
    length = packing.length or counts.longest_pack
    rows = max(1, counts.packed_rows)
    return PackSummary(
        sequences=counts.sequences,
        sequences_mean=round(counts.sequences / rows, 2),
        sequences_max=counts.most_sequences,
        pack_length=length,
        fill_rate=fraction(counts.packed_tokens, rows * length) or 0.0,
        misfit=counts.mismatched_packs,
    )


def count_shard(layout: ColumnLayout, root: AnyPath, packing: Packing) -> tuple[ShardSummary, ShardCounts]:
    """Count one file.

    Args:
        layout: the columns of the file.
        root: the directory that its name in the summary is relative to.
        packing: how its rows were packed.

    Raises:
        SourceError: it cannot be read.
    """
    counts = ShardCounts()
    is_supervised = layout.tokens and bool(layout.supervision)
    total = ShardSummary(
        file=relative_name(layout.path, root),
        rows=0,
        tokens=0 if layout.tokens else None,
        trained_tokens=0 if is_supervised else None,
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
        offsets = tokens.ids.offsets if packs is None else packs.offsets
        counts.lengths.add(np.diff(offsets))
        counts.add_sources(tokens, offsets)
        counts.mismatched_rows += int(np.count_nonzero(tokens.length_mismatch))
        counts.wrong_labels += int(np.count_nonzero(tokens.wrong_labels))
        if packs is not None:
            counts.add_packs(tokens.ids, packs)
        total = replace(total, tokens=(total.tokens or 0) + len(tokens.ids.values))
        if tokens.trained is not None:
            total = replace(total, trained_tokens=(total.trained_tokens or 0) + int(np.count_nonzero(tokens.trained)))
            if tokens.weights is not None:
                counts.wrong_weights += int(np.count_nonzero((tokens.weights > 0) != tokens.trained))
            if tokens.kinds is not None:
                counts.add_kinds(tokens.kinds, tokens.trained)
    return total, counts


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
