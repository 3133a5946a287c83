"""The summary of a set of shards: what was counted in the Parquet files, with the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftkit.inspection.summary.lengths import Lengths
from sftkit.shards.manifest import Manifest


@dataclass(frozen=True)
class ShardSummary:
    """Counts of one Parquet file."""

    file: str
    rows: int
    tokens: int | None
    """None for text."""
    trained_tokens: int | None
    """None when there are no labels or masks."""
    characters: int | None
    """None for tokens."""


@dataclass(frozen=True)
class PackSummary:
    """The packs of one split."""

    sequences: int
    """Number of sequences in all packs."""
    sequences_mean: float
    """Sequences per pack."""
    sequences_max: int
    """The most sequences in one pack."""
    pack_length: int
    """The most tokens of a pack: the manifest's `pack_length`, or the length of the longest pack."""
    fill_rate: float
    """Tokens / (packs * pack_length), 0 to 1."""
    misfit: int
    """Packs whose `seq_lengths` do not match their tokens; each counts as one sequence."""


@dataclass(frozen=True)
class SourceCounts:
    """What of a split is from one data set, by the column `source`."""

    sequences: int
    """Rows, or sequences of packs."""
    tokens: int
    trained_tokens: int
    loss_weight: float
    """The sum of the loss weights of its tokens: `trained_tokens` without a column `loss_weights`."""


@dataclass(frozen=True)
class SplitSummary:
    """The shards of one split."""

    name: str
    rows: int
    tokens: int | None
    trained_tokens: int | None
    trained_share: float | None
    """Trained tokens / tokens, 0 to 1."""
    characters: int | None
    packs: PackSummary | None
    """None where rows are not packed."""
    lengths: Lengths | None
    """Lengths of the rows, or of the sequences where rows are packed."""
    wrong_labels: int
    """Trained tokens whose label differs from their id."""
    misfit_rows: int
    """Rows whose labels (or masks) and `input_ids` differ in length."""
    shards: tuple[ShardSummary, ...]
    trained_by_kind: Mapping[str, int] | None = None
    """Trained tokens by kind; None without a column `token_kinds`."""
    by_source: Mapping[str, SourceCounts] | None = None
    """Counts by the name of the data set; None without a column `source`."""


@dataclass(frozen=True)
class Summary:
    """A set of shards."""

    location: str
    columns: tuple[str, ...]
    """Columns of the first shard."""
    text_column: str | None
    """The text column, where rows are text."""
    supervision: tuple[str, ...]
    """The columns that say which tokens carry a loss; () when there are none."""
    splits: tuple[SplitSummary, ...]
    origin: Manifest | None
    """The manifest of the shards. JSON reports include only how the shards were made (`report_json`)."""
    notes: tuple[str, ...]
    """Warnings for the reader, one sentence each."""


def source_name(number: int, manifest: Manifest | None) -> str:
    """Return the name of a data set by its number in the column `source`; `number 3` if the manifest has no name."""
    names = manifest.source_names if manifest is not None else ()
    return names[number] if 0 <= number < len(names) else f"number {number}"


def fraction(part: int | None, whole: int | None) -> float | None:
    """Return part / whole, 0 to 1, rounded to four places; None if either is unknown or the whole is 0."""
    return round(part / whole, 4) if part is not None and whole else None
