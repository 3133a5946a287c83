"""Rows as they are shown: every token with its text, its loss and its kind; turns, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from sftkit.inspection.view.row_findings import RowFinding
from sftkit.inspection.view.turns import Turn


@dataclass(frozen=True, slots=True)
class ShownToken:
    """One token.

    text: what it adds to the text; None where no tokenizer tells. trained: whether it carries a loss; None where
    nothing tells. label: only where it carries a loss towards another id than its own.
    """

    id: int
    text: str | None
    trained: bool | None
    special: bool
    label: int | None


@dataclass(frozen=True)
class ShownRow:
    """One row. row: within its split, shard_row: within its file, both from 0.

    length: in tokens (characters for text). trained_share: of all its tokens, 0 to 1. seq_lengths: tokens of the
    sequences that share it, for a pack of which they can be told. text: of a row that is text; it has no tokens then.
    turns, findings: () where there is no tokenizer to tell them. on_page: the sequences of a pack that pages show, from
    0; JSON has all of them.
    """

    split: str
    row: int
    shard: str
    shard_row: int
    length: int
    trained_tokens: int | None
    trained_share: float | None
    seq_lengths: tuple[int, ...]
    notes: tuple[str, ...]
    text: str | None
    tokens: tuple[ShownToken, ...]
    turns: tuple[Turn, ...]
    findings: tuple[RowFinding, ...]
    on_page: tuple[int, ...] = ()


@dataclass(frozen=True)
class TextSegment:
    """Neighbouring tokens of one kind.

    start, stop: positions in the row. wrong: their labels are other ids. known: False for ids that have no text;
    `text` then holds the numbers.
    """

    text: str
    start: int
    stop: int
    trained: bool | None
    special: bool
    wrong: bool
    known: bool


def segments(row: ShownRow, start: int = 0, stop: int | None = None) -> Iterator[TextSegment]:
    """Group neighbouring tokens of a row, or of [start, stop) of it, that are trained or not, special or not, alike."""
    for kind, some in groupby(row.tokens[start:stop], key=_kind):
        tokens = list(some)
        trained, special, wrong, known = kind
        text = "".join(token.text or "" for token in tokens) if known else " ".join(str(t.id) for t in tokens)
        yield TextSegment(text, start, start + len(tokens), trained, special, wrong, known)
        start += len(tokens)


def _kind(token: ShownToken) -> tuple[bool | None, bool, bool, bool]:
    return token.trained, token.special, token.label is not None, token.text is not None
