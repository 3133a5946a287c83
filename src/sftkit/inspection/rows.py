"""Rows as the model sees them: every token with its text, its loss and its kind; turns, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from sftkit.audit.findings import SPECIAL_TOKEN_IN_CONTENT
from sftkit.audit.norms import Norms
from sftkit.inspection.columns import Layout, Tokens, layout_of, row_groups, texts_of, tokens_of
from sftkit.inspection.decoding import Decoder, Piece
from sftkit.inspection.row_findings import RowFinding, findings_in, placed
from sftkit.inspection.selection import Place
from sftkit.inspection.summary import shard_label, share
from sftkit.inspection.turns import Turn, Written, turns_of
from sftkit.rows import Offsets


@dataclass(frozen=True, slots=True)
class Token:
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
    sequences that share it, for a pack. text: of a row that is text; it has no tokens then. turns, findings: () where
    there is no tokenizer to tell them.
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
    tokens: tuple[Token, ...]
    turns: tuple[Turn, ...]
    findings: tuple[RowFinding, ...]


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens of one kind.

    start, stop: positions in the row. wrong: their labels are other ids. known: False for ids that have no text;
    `text` then holds the numbers. sequence: which one of a pack they belong to, from 0.
    """

    text: str
    start: int
    stop: int
    trained: bool | None
    special: bool
    wrong: bool
    known: bool
    sequence: int


def read_rows(
    places: Sequence[Place], root: Path, decoder: Decoder | None, norms: Norms | None, text_fields: Sequence[str]
) -> list[ShownRow]:
    """Read the rows at some places, one row group in memory at a time.

    Args:
        places: where they are.
        root: of the set of shards.
        decoder: what makes text of tokens, where there is a tokenizer.
        norms: what right rows look like, where that is known.
        text_fields: names that a text column may have.

    Raises:
        SourceError: a file cannot be read.
    """
    rows = []
    for (path, group), some in groupby(places, key=lambda place: (place.path, place.group)):
        layout = layout_of(path, text_fields)
        table = next(row_groups(layout, group))
        rows += [_row(table.slice(place.group_row, 1), layout, place, root, decoder, norms) for place in some]
    return rows


def segments(row: ShownRow, start: int = 0, stop: int | None = None) -> Iterator[Segment]:
    """Group neighbouring tokens of a row, or of [start, stop) of it, that are trained or not, special or not, alike."""
    ends = np.cumsum(row.seq_lengths, dtype=np.int64)
    chosen = enumerate(row.tokens[start:stop], start=start)
    for kind, some in groupby(chosen, key=lambda item: _kind(item[1], item[0], ends)):
        tokens = [token for _, token in some]
        trained, special, wrong, known, sequence = kind
        text = "".join(token.text or "" for token in tokens) if known else " ".join(str(t.id) for t in tokens)
        yield Segment(text, start, start + len(tokens), trained, special, wrong, known, sequence)
        start += len(tokens)


def _kind(token: Token, position: int, ends: Offsets) -> tuple[bool | None, bool, bool, bool, int]:
    sequence = int(np.searchsorted(ends, position, side="right"))
    return token.trained, token.special, token.label is not None, token.text is not None, sequence


def _row(
    table: pa.Table, layout: Layout, place: Place, root: Path, decoder: Decoder | None, norms: Norms | None
) -> ShownRow:
    shard = shard_label(place.path, root)
    if not layout.tokens:
        text = texts_of(table, layout)[0]
        return ShownRow(place.split, place.row, shard, place.shard_row, len(text), None, None, (), (), text, (), (), ())
    read = tokens_of(table, layout)
    tokens = _tokens(read, decoder)
    trained = None if read.trained is None else int(np.count_nonzero(read.trained))
    packs = () if read.seq_lengths is None else tuple(read.seq_lengths.values.tolist())
    turns, findings = _measured(read, tokens, packs, norms) if norms is not None else ((), ())
    return ShownRow(
        split=place.split,
        row=place.row,
        shard=shard,
        shard_row=place.shard_row,
        length=len(tokens),
        trained_tokens=trained,
        trained_share=share(trained, len(tokens)),
        seq_lengths=packs,
        notes=tuple(_notes(read, tokens, packs, decoded=decoder is not None)),
        text=None,
        tokens=tokens,
        turns=turns,
        findings=findings,
    )


def _measured(
    read: Tokens, tokens: Sequence[Token], packs: Sequence[int], norms: Norms
) -> tuple[tuple[Turn, ...], tuple[RowFinding, ...]]:
    """The turns of a row, and what is wrong in them."""
    ids = read.ids.values
    sequences = _sequences(packs, len(tokens))
    findings = findings_in(ids, read.labels, read.trained, sequences, norms)
    written = Written(
        ids.tolist(), [token.text for token in tokens], [token.special for token in tokens], read.trained, sequences
    )
    in_content = [finding.start for finding in findings if finding.rule == SPECIAL_TOKEN_IN_CONTENT]
    turns = turns_of(written, norms, in_content)
    return turns, placed(findings, turns, packed=len(sequences) > 1)


def _sequences(packs: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """[start, stop) of the sequences that share a row; lengths that do not sum up to it say nothing."""
    if not packs or sum(packs) != tokens or min(packs) < 0:
        return [(0, tokens)]
    return list(pairwise([0, *np.cumsum(packs, dtype=np.int64).tolist()]))


def _tokens(read: Tokens, decoder: Decoder | None) -> tuple[Token, ...]:
    ids = read.ids.values
    pieces = [Piece(None, False)] * len(ids) if decoder is None else decoder.pieces(ids)
    wrong = read.wrong.tolist()
    labels = read.labels.tolist() if read.labels is not None else [None] * len(ids)
    trained = read.trained.tolist() if read.trained is not None else [None] * len(ids)
    return tuple(
        Token(value, piece.text, loss, piece.special, label if different else None)
        for value, piece, loss, different, label in zip(ids.tolist(), pieces, trained, wrong, labels, strict=True)
    )


def _notes(read: Tokens, tokens: Sequence[Token], packs: Sequence[int], *, decoded: bool) -> Iterator[str]:
    if not tokens:
        yield "this row has no tokens"
    if read.misfit.any():
        yield "labels (or masks) and input_ids differ in length"
    if packs and sum(packs) != len(tokens):
        yield f"seq_lengths sum to {sum(packs):,}, not to the {len(tokens):,} tokens of the row"
    wrong = [(position, token) for position, token in enumerate(tokens) if token.label is not None]
    if wrong:
        position, token = wrong[0]
        yield (
            f"{len(wrong):,} trained tokens have a label that differs from their id, the first at position "
            f"{position:,}: id {token.id}, label {token.label}"
        )
    unknown = [token.id for token in tokens if token.text is None]
    if decoded and unknown:
        yield f"{len(unknown):,} ids are not in the tokenizer's vocabulary, the first is {unknown[0]}"
