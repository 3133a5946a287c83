"""What a set of shards holds, counted from the Parquet itself and told together with its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftkit.inspection.summary.lengths import Lengths
from sftkit.shards.manifest import SourceInfo, TokenizerInfo


@dataclass(frozen=True)
class ShardSummary:
    """One Parquet file. tokens: None for text; trained_tokens: None where nothing tells; characters: of text only."""

    file: str
    rows: int
    tokens: int | None
    trained_tokens: int | None
    characters: int | None


@dataclass(frozen=True)
class PackSummary:
    """The packs of one split.

    sequences: how many share them. sequences_mean, sequences_max: in a pack. pack_length: tokens that a pack has room
    for: the manifest's, or else those of the longest pack. fill_rate: how much of that is filled, 0 to 1.
    misfit: packs whose `seq_lengths` do not tell where sequences begin; each counts as one sequence.
    """

    sequences: int
    sequences_mean: float
    sequences_max: int
    pack_length: int
    fill_rate: float
    misfit: int


@dataclass(frozen=True)
class SplitSummary:
    """The shards of one split together.

    trained_share: of all tokens, 0 to 1. packs: where rows are packed. lengths: of rows, of packed rows their
    sequences. wrong_labels: tokens that carry a loss towards another id than their own. misfit_rows: rows whose labels
    (or masks) and `input_ids` differ in length.
    """

    name: str
    rows: int
    tokens: int | None
    trained_tokens: int | None
    trained_share: float | None
    characters: int | None
    packs: PackSummary | None
    lengths: Lengths | None
    wrong_labels: int
    misfit_rows: int
    shards: tuple[ShardSummary, ...]


@dataclass(frozen=True)
class DatasetOrigin:
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
    origin: DatasetOrigin | None
    notes: tuple[str, ...]


def fraction(part: int | None, whole: int | None) -> float | None:
    """A part of a whole, 0 to 1, rounded to four places; None where there is none."""
    return round(part / whole, 4) if part is not None and whole else None
