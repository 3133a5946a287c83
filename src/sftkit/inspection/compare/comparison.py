"""The result of a comparison of two data sets, A and B.

It is counted in sequences: a sequence is a row, or one of those in a pack, so that packing makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sftkit.inspection.view.shown_row import ShownToken

MOVED, LABELS_DIFFER, IDS_DIFFER = "moved", "labels_differ", "ids_differ"
ONLY_IN_A, ONLY_IN_B = "only_in_a", "only_in_b"
DIFFERENCE_KINDS = (MOVED, LABELS_DIFFER, IDS_DIFFER, ONLY_IN_A, ONLY_IN_B)
"""The fields of `KindCounts` that are differences."""

BY_IDS, BY_COLUMN, BY_POSITION, BY_CONTENT = "ids", "column", "position", "content"
"""How two sequences that differ were found to belong together."""

KIND_NAMES = {
    "identical": "identical",
    MOVED: "in another split",
    LABELS_DIFFER: "labels differ",
    IDS_DIFFER: "ids differ",
    ONLY_IN_A: "only in A",
    ONLY_IN_B: "only in B",
}
"""The fields of `KindCounts` -> what they are called in text."""

PAIRED_NAMES = {
    BY_IDS: "same ids",
    BY_POSITION: "paired by position",
    BY_CONTENT: "paired by content",
    BY_COLUMN: "paired by",
}


@dataclass(frozen=True)
class KindCounts:
    """Sequences by how they compare. A sequence that occurs n times in A and m times in B is min(n, m) times equal.

    Sequences of A: identical + moved + labels_differ + ids_differ + only_in_a; those of B with `only_in_b`.
    """

    identical: int = 0
    """Pairs with the same ids and labels."""
    moved: int = 0
    """Pairs with the same ids and labels in different splits; they count in the split of A."""
    labels_differ: int = 0
    """Pairs with the same ids and different labels, or loss weights."""
    ids_differ: int = 0
    """Pairs that belong together and have different ids (or texts)."""
    only_in_a: int = 0
    only_in_b: int = 0

    def __add__(self, other: KindCounts) -> KindCounts:
        names = ("identical", *DIFFERENCE_KINDS)
        return KindCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def differences(self) -> int:
        """Pairs and sequences that differ."""
        return sum(getattr(self, kind) for kind in DIFFERENCE_KINDS)


@dataclass(frozen=True)
class ComparedSide:
    """One of the two data sets."""

    location: str
    splits: Mapping[str, int]
    """Sequences of each split."""
    tokens: int
    """Tokens (bytes of text) of these splits."""
    trained_tokens: int | None
    """Those that carry a loss; None for text, and where a side has no labels."""
    packed: bool
    has_manifest: bool


@dataclass(frozen=True)
class SettingDifference:
    """Something that the manifests say differently. A value is None where it is missing."""

    key: str
    """`fingerprint`, `config.max_seq_length`, `versions.transformers`, `tokenizer.fingerprint`, ..."""
    a: Any
    b: Any
    details: tuple[str, ...] = ()
    """Lines that show the difference of long texts."""


@dataclass(frozen=True)
class SplitComparison:
    """The sequences of one split."""

    name: str
    counts: KindCounts
    same_position: int
    """Of the identical sequences, those at the same position in A and B."""
    paired_by: Mapping[str, int]
    """How the pairs whose ids differ were found (`position`, `content`, `column`) -> pairs."""


@dataclass(frozen=True)
class SourceComparison:
    """The sequences of one source; pairs belong to the source of A, if that is known, else to that of B."""

    dataset: str
    source: str
    counts: KindCounts


@dataclass(frozen=True)
class SequencePlace:
    """A sequence of one side, and the part of it that is shown."""

    split: str
    shard: str
    row: int
    """Index of its row (of the pack, if packed) in the file, from 0."""
    sequence: int | None
    """Index in the pack, from 0; None where rows are not packed."""
    length: int
    """Tokens (characters of text)."""
    first: int
    """Position of the first token (character) that is shown."""
    tokens: tuple[ShownToken, ...]
    text: str | None
    """The part of a text that is shown; None for tokens."""


@dataclass(frozen=True)
class RowDifference:
    """An example of a difference."""

    kind: str
    """One of `DIFFERENCE_KINDS`."""
    paired_by: str | None
    """How the pair was found; None for a sequence without a counterpart."""
    position: int | None
    """The first token (character) that differs, from 0; None where nothing in it differs or it has no counterpart."""
    a: SequencePlace | None
    b: SequencePlace | None


@dataclass(frozen=True)
class Comparison:
    """What differs between two data sets."""

    a: ComparedSide
    b: ComparedSide
    differs: bool
    """Whether any sequence differs. Settings, order and packing alone are no difference."""
    counts: KindCounts
    settings: tuple[SettingDifference, ...]
    splits: tuple[SplitComparison, ...]
    sources: tuple[SourceComparison, ...]
    """Only sources with differences; () where no side says which source its rows came from."""
    examples: tuple[RowDifference, ...]
    """The first differences of each kind, in the order of `DIFFERENCE_KINDS`."""
    notes: tuple[str, ...] = field(default=())
