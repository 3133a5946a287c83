"""Rows as they are displayed: tokens with text, loss and kind; turns and findings; the sequences of a pack to print."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

from sftkit.inspection.view.row_findings import RowFinding
from sftkit.inspection.view.selection import RowLocation
from sftkit.inspection.view.turns import Turn

FIRST_SEQUENCES = 3
"""Sequences of a pack that are printed: so many from its start, and as many of the others that have findings."""


@dataclass(frozen=True, slots=True)
class ShownToken:
    """One token."""

    id: int
    text: str | None
    """What it adds to the text; None when unknown."""
    trained: bool | None
    """Whether it carries a loss; None when unknown."""
    special: bool
    label: int | None
    """Its label where it carries a loss, which should be its id; None elsewhere."""
    kind: str | None = None
    """What of a turn it is (`TokenKind`), only where it carries a loss; None when unknown."""
    weight: float | None = None
    """Its loss weight, only where it carries a loss; None when there is no column `loss_weights`."""

    @property
    def is_mislabelled(self) -> bool:
        """Whether its label is another token."""
        return self.label is not None and self.label != self.id


@dataclass(frozen=True)
class ShownRow:
    """One row."""

    split: str
    row: int
    """Index within the split."""
    shard: str
    shard_row: int
    """Index within the file."""
    length: int
    """Tokens, or characters of text."""
    trained_tokens: int | None
    trained_share: float | None
    """Trained tokens / tokens, 0 to 1."""
    seq_lengths: tuple[int, ...]
    """Tokens of the sequences in a pack; () for other rows, and where they are unknown."""
    notes: tuple[str, ...]
    text: str | None
    """The text of a row of text, which has no tokens."""
    tokens: tuple[ShownToken, ...]
    turns: tuple[Turn, ...]
    """() without a tokenizer."""
    findings: tuple[RowFinding, ...]
    """() without a tokenizer."""
    on_page: tuple[int, ...] = ()
    """Indices of the sequences of a pack that are printed; JSON contains all tokens."""
    sources: tuple[str, ...] = ()
    """The data set of the row, or of each sequence of a pack; () when there is no column `source`."""


@dataclass(frozen=True)
class TextSegment:
    """Adjacent tokens of the same kind, [start, stop) of the row."""

    text: str
    start: int
    stop: int
    trained: bool | None
    special: bool
    wrong: bool
    """Whether their labels differ from their ids."""
    known: bool
    """Whether the tokens have a text; `text` lists their ids otherwise."""
    kind: str | None
    """What of a turn they are; None when unknown."""


def segments(row: ShownRow, start: int = 0, stop: int | None = None) -> Iterator[TextSegment]:
    """Group adjacent tokens [start, stop) of a row that are equally trained, special and labelled, and of one kind."""
    for look, group in groupby(row.tokens[start:stop], key=_look):
        tokens = list(group)
        trained, special, wrong, known, kind = look
        text = "".join(token.text or "" for token in tokens) if known else " ".join(str(t.id) for t in tokens)
        yield TextSegment(text, start, start + len(tokens), trained, special, wrong, known, kind)
        start += len(tokens)


def _look(token: ShownToken) -> tuple[bool | None, bool, bool, bool, str | None]:
    return token.trained, token.special, token.is_mislabelled, token.text is not None, token.kind


def with_page_sequences(row: ShownRow, location: RowLocation, *, is_requested: bool) -> ShownRow:
    """Choose the sequences of a pack to print, since a pack may hold hundreds.

    After a search these are the sequences that contain the text, for a requested pack all of them, and otherwise the
    first ones and some with findings.

    Args:
        row: a row; one that is no pack is printed as a whole.
        location: its location, with the sequences that a search found.
        is_requested: whether the user asked for this very pack.
    """
    every = range(len(row.seq_lengths))
    if location.hits is not None and row.seq_lengths:
        return replace(row, on_page=location.hits)
    if is_requested or len(every) <= FIRST_SEQUENCES + 1:
        return replace(row, on_page=tuple(every))
    faulty = [number for number in sequences_with_findings(row) if number >= FIRST_SEQUENCES]
    return replace(row, on_page=(*every[:FIRST_SEQUENCES], *faulty[:FIRST_SEQUENCES]))


def sequences_with_findings(row: ShownRow) -> list[int]:
    """Return the indices of the sequences of a pack that have findings, ascending."""
    return sorted({_sequence_at(found.start, row.seq_lengths) for found in row.findings if found.turn is not None})


def _sequence_at(position: int, lengths: Sequence[int]) -> int:
    return bisect_right(list(accumulate(lengths)), position)
