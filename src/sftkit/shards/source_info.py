"""What a manifest says of each source file: its rows, what became of them, and what the mix took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sftkit.core.accounting.cuts import Cuts


@dataclass(frozen=True)
class WrittenRows:
    """What of a source went into a split. A row that the mix repeats counts each time; tokens of text are 0."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class MixInfo:
    """What the mix made of a source in the train split. Shares are fractions of that split, in the unit of `mix_by`;
    those of the files of a data set add up to its share."""

    wanted_share: float
    """What the config asks for. Of a data set with several files, each has a part in proportion to its rows."""
    reached_share: float
    copies_min: int
    """How often the row that was used least is in the train split; rows for validation do not count."""
    copies_max: int
    trained_tokens: int
    """In the train split, before packing, which takes the loss off the first token of a row; 0 for text."""


@dataclass(frozen=True)
class SourceInfo:
    """One source file and its row counts: rows_read + rows_added = rows_kept + the sum of `dropped` + quarantined."""

    dataset: str
    """Name of the data set that the file belongs to."""
    path: str
    bytes: int
    sha256: str
    rows_read: int
    rows_kept: int
    dropped: Mapping[str, int]
    """As in `Manifest`."""
    quarantined: int
    dropped_by_handler: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """As in `Manifest`."""
    quarantined_by_reason: Mapping[str, int] = field(default_factory=dict)
    """As in `Manifest`."""
    cuts: Cuts | None = None
    not_rendered: Mapping[str, int] = field(default_factory=dict)
    """As in `Manifest`."""
    rows_added: int = 0
    """As in `Manifest`."""
    columns_not_used: Mapping[str, int] = field(default_factory=dict)
    """Columns that neither reached tokens nor were retained -> rows in which they are filled, for the first 200 of
    them. Columns that the config removes or ignores by name are left out."""
    tokens_kept: int = 0
    """Tokens of the rows that were kept, before splitting, mixing and packing; 0 for text and in older manifests."""
    written: Mapping[str, WrittenRows] = field(default_factory=dict)
    """By split: what splitting and mixing took. Empty in older manifests."""
    mix: MixInfo | None = None
    """None without a mix, and in older manifests."""
