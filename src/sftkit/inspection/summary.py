"""What a set of shards holds, counted from the Parquet itself and told together with its manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from sftkit.errors import SourceError
from sftkit.inspection.columns import TEXT, Layout, layout_of, row_groups, text_lengths, tokens_of
from sftkit.inspection.lengths import LengthCounter, Lengths
from sftkit.shards.manifest import Manifest, ShardInfo, SourceInfo, TokenizerInfo
from sftkit.shards.reading import ShardSet

_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ShardSummary:
    """One Parquet file. tokens: None for text; trained_tokens: None where nothing tells; characters: of text only."""

    file: str
    rows: int
    tokens: int | None
    trained_tokens: int | None
    characters: int | None


@dataclass(frozen=True)
class SplitSummary:
    """The shards of one split together.

    trained_share: of all tokens, 0 to 1. sequences: in packed rows, how many share them. lengths: of rows.
    wrong_labels: tokens that carry a loss towards another id than their own. misfit_rows: rows whose labels (or masks)
    and `input_ids` differ in length.
    """

    name: str
    rows: int
    tokens: int | None
    trained_tokens: int | None
    trained_share: float | None
    characters: int | None
    sequences: int | None
    lengths: Lengths | None
    wrong_labels: int
    misfit_rows: int
    shards: tuple[ShardSummary, ...]


@dataclass(frozen=True)
class Origin:
    """What only the manifest knows: how the shards came to be."""

    tokenizer: TokenizerInfo | None
    engine: Mapping[str, str]
    sources: tuple[SourceInfo, ...]
    rows_read: int
    rows_written: int
    rows_left_out: int
    rows_repeated: int
    dropped: Mapping[str, int]
    quarantined: int
    fingerprint: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Summary:
    """A set of shards.

    columns: of the first shard. text_column: named where rows are text. supervision: the columns that say which tokens
    carry a loss, () when none do. notes: what the reader should know, one sentence each.
    """

    location: str
    columns: tuple[str, ...]
    text_column: str | None
    supervision: tuple[str, ...]
    splits: tuple[SplitSummary, ...]
    origin: Origin | None
    notes: tuple[str, ...]


def text_fields(shards: ShardSet, chosen: str | None = None) -> tuple[str, ...]:
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
    fields = text_fields(shards, text_field)
    layouts = {split: [layout_of(path, fields) for path in paths] for split, paths in shards.splits.items()}
    every = [layout for files in layouts.values() for layout in files]
    splits = tuple(_split(name, files, shards.root) for name, files in layouts.items())
    if not any(split.rows for split in splits):
        raise SourceError(f"{shards.root}: holds no rows; columns there: {', '.join(every[0].names) or 'none'}")
    return Summary(
        location=shards.name or str(shards.root),
        columns=every[0].names,
        text_column=every[0].text,
        supervision=every[0].supervision,
        splits=splits,
        origin=_origin(shards.manifest) if shards.manifest is not None else None,
        notes=(*_notes(splits, every), *_contradictions(splits, shards.manifest)),
    )


@dataclass
class _Counts:
    """Running counts of a shard that only its split tells of."""

    lengths: LengthCounter = field(default_factory=LengthCounter)
    sequences: int | None = None
    wrong: int = 0
    misfit: int = 0


def _split(name: str, files: Sequence[Layout], root: Path) -> SplitSummary:
    # Arrow and numpy let go of the interpreter while they work; each thread holds one row group.
    with ThreadPoolExecutor(_THREADS) as pool:
        counted = list(pool.map(partial(_shard, root=root), files))
    shards = tuple(shard for shard, _ in counted)
    counts = _Counts()
    for _, part in counted:
        counts.lengths.merge(part.lengths)
        counts.wrong += part.wrong
        counts.misfit += part.misfit
        counts.sequences = _sum([counts.sequences, part.sequences])
    tokens, trained = _sum([s.tokens for s in shards]), _sum([s.trained_tokens for s in shards])
    return SplitSummary(
        name=name,
        rows=sum(shard.rows for shard in shards),
        tokens=tokens,
        trained_tokens=trained,
        trained_share=share(trained, tokens),
        characters=_sum([shard.characters for shard in shards]),
        sequences=counts.sequences,
        lengths=counts.lengths.result(),
        wrong_labels=counts.wrong,
        misfit_rows=counts.misfit,
        shards=shards,
    )


def _shard(layout: Layout, root: Path) -> tuple[ShardSummary, _Counts]:
    counts = _Counts()
    known = layout.tokens and bool(layout.supervision)
    total = ShardSummary(
        file=shard_label(layout.path, root),
        rows=0,
        tokens=0 if layout.tokens else None,
        trained_tokens=0 if known else None,
        characters=None if layout.tokens else 0,
    )
    for table in row_groups(layout):
        total = replace(total, rows=total.rows + table.num_rows)
        if not layout.tokens:
            lengths = text_lengths(table, layout)
            counts.lengths.add(lengths)
            total = replace(total, characters=(total.characters or 0) + int(lengths.sum()))
            continue
        tokens = tokens_of(table, layout)
        counts.lengths.add(tokens.ids.lengths)
        counts.misfit += int(np.count_nonzero(tokens.misfit))
        counts.wrong += int(np.count_nonzero(tokens.wrong))
        if tokens.seq_lengths is not None:
            counts.sequences = (counts.sequences or 0) + len(tokens.seq_lengths.values)
        total = replace(total, tokens=(total.tokens or 0) + len(tokens.ids.values))
        if tokens.trained is not None:
            total = replace(total, trained_tokens=(total.trained_tokens or 0) + int(np.count_nonzero(tokens.trained)))
    return total, counts


def share(part: int | None, whole: int | None) -> float | None:
    """A part of a whole, 0 to 1, rounded to four places; None where there is none."""
    return round(part / whole, 4) if part is not None and whole else None


def shard_label(path: Path, root: Path) -> str:
    """A shard's path within its set; its name where the set is that one file."""
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else path.name


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _origin(manifest: Manifest) -> Origin:
    return Origin(
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


def _notes(splits: Sequence[SplitSummary], layouts: Sequence[Layout]) -> list[str]:
    notes = []
    if len({(layout.tokens, layout.supervision) for layout in layouts}) > 1:
        notes.append("the shards do not have the same columns")
    if any(layout.tokens and not layout.supervision for layout in layouts):
        notes.append("there are no labels: nothing here says which tokens carry a loss")
    for split in splits:
        if split.wrong_labels:
            notes.append(f"{split.name}: {split.wrong_labels:,} tokens carry a label that differs from their id")
        if split.misfit_rows:
            notes.append(f"{split.name}: in {split.misfit_rows:,} rows labels and input_ids differ in length")
        if split.trained_tokens == 0 and split.tokens:
            notes.append(f"{split.name}: not one token carries a loss")
    return notes


def _contradictions(splits: Sequence[SplitSummary], manifest: Manifest | None) -> list[str]:
    """Shards that do not hold what the manifest says."""
    if manifest is None:
        return []
    notes = []
    for split in splits:
        said = {shard.file: shard for shard in manifest.splits[split.name].shards}
        for shard in split.shards:
            if _counted(shard) != _said(said[shard.file]):
                notes.append(
                    f"{shard.file} is not what the manifest says: {_counted(shard)} (rows, tokens, trained tokens), "
                    f"the manifest has {_said(said[shard.file])}"
                )
    return notes


def _counted(shard: ShardSummary) -> tuple[int, int, int]:
    return shard.rows, shard.tokens or 0, shard.trained_tokens or 0


def _said(shard: ShardInfo) -> tuple[int, int, int]:
    return shard.rows, shard.tokens, shard.trained_tokens
