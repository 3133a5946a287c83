"""Rows read from shards at their places, to be shown as the model sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np
import pyarrow as pa

from sftkit.audit.checks.packs import PackBoundaries
from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.findings import SPECIAL_TOKEN_IN_CONTENT
from sftkit.core.rows import Ragged
from sftkit.inspection.parquet_columns import (
    ColumnLayout,
    TokenColumns,
    iter_row_groups,
    read_layout,
    split_packing,
    text_values,
    token_columns,
)
from sftkit.inspection.summary.dataset_summary import fraction
from sftkit.inspection.view.decoding import TokenDecoder, TokenText
from sftkit.inspection.view.row_findings import WHOLE_ROW_RULES, RowFinding, assign_turns, find_in_row
from sftkit.inspection.view.selection import RowLocation
from sftkit.inspection.view.shown_row import ShownRow, ShownToken
from sftkit.inspection.view.turns import RowTokens, Turn, split_turns
from sftkit.shards.reading import ShardSet
from sftkit.storage.paths import relative_name

MOST_TOKENS = 1 << 18
"""Tokens that are shown of one row: what a screen, and memory, take."""


def read_rows(
    places: Sequence[RowLocation],
    shards: ShardSet,
    decoder: TokenDecoder | None,
    norms: Expectations | None,
    text_fields: Sequence[str],
) -> list[ShownRow]:
    """Read the rows at some places, one row group in memory at a time.

    Args:
        places: where they are.
        shards: the set of shards that they are in.
        decoder: what makes text of tokens, where there is a tokenizer.
        norms: what right rows look like, where that is known.
        text_fields: names that a text column may have.

    Raises:
        SourceError: a file cannot be read.
    """
    rows = []
    for (path, group), some in groupby(places, key=lambda place: (place.path, place.group)):
        layout = read_layout(path, text_fields)
        table = next(iter_row_groups(layout, group))
        rows += [_row(table.slice(place.group_row, 1), layout, place, shards, decoder, norms) for place in some]
    return rows


def _row(
    table: pa.Table,
    layout: ColumnLayout,
    place: RowLocation,
    shards: ShardSet,
    decoder: TokenDecoder | None,
    norms: Expectations | None,
) -> ShownRow:
    shard = relative_name(place.path, shards.root)
    if not layout.tokens:
        text = text_values(table, layout)[0]
        return ShownRow(place.split, place.row, shard, place.shard_row, len(text), None, None, (), (), text, (), (), ())
    whole = token_columns(table, layout)
    read = _beginning(whole)
    packing = split_packing(shards.manifest, place.split)
    packs = read.packs(packing)
    sequences = [(0, len(read.ids.values))] if packs is None else list(pairwise(packs.offsets.tolist()))
    tokens = _tokens(read, sequences, decoder)
    length = len(whole.ids.values)
    trained = None if whole.trained is None else int(np.count_nonzero(whole.trained))
    notes = [f"only the first {MOST_TOKENS:,} of its tokens are shown"] if length > MOST_TOKENS else []
    turns: tuple[Turn, ...] = ()
    findings: tuple[RowFinding, ...] = ()
    if norms is not None:
        found = _findings(whole, whole.packs(packing), norms)
        turns, findings = _measured(read, tokens, found, sequences, norms, packed=packs is not None)
    return ShownRow(
        split=place.split,
        row=place.row,
        shard=shard,
        shard_row=place.shard_row,
        length=length,
        trained_tokens=trained,
        trained_share=fraction(trained, length),
        seq_lengths=_told_lengths(packs),
        notes=(*notes, *_notes(read, tokens, packs, decoded=decoder is not None)),
        text=None,
        tokens=tokens,
        turns=turns,
        findings=findings,
    )


def _beginning(read: TokenColumns) -> TokenColumns:
    """One row, as far as it is shown."""
    if len(read.ids.values) <= MOST_TOKENS:
        return read
    lengths = None
    if read.seq_lengths is not None:
        told = read.seq_lengths.values
        ends = np.minimum(np.cumsum(told, dtype=np.int64), MOST_TOKENS)
        kept = np.diff(ends, prepend=0).astype(told.dtype)
        lengths = Ragged.from_lengths(kept[kept > 0], np.array([np.count_nonzero(kept > 0)]))
    return TokenColumns(
        ids=read.ids.truncate(np.array([MOST_TOKENS])),
        labels=None if read.labels is None else read.labels[:MOST_TOKENS],
        trained=None if read.trained is None else read.trained[:MOST_TOKENS],
        misfit=read.misfit,
        seq_lengths=lengths,
    )


def _told_lengths(packs: PackBoundaries | None) -> tuple[int, ...]:
    if packs is None or packs.mismatched.any():
        return ()
    return tuple(np.diff(packs.offsets).tolist())


def _findings(row: TokenColumns, packs: PackBoundaries | None, norms: Expectations) -> list[RowFinding]:
    """What is wrong with a row, as far as it is shown."""
    # Of labels that do not fit nobody knows which token they belong to.
    labels, trained = (None, None) if row.misfit.any() else (row.labels, row.trained)
    found = find_in_row(row.ids.values, labels, trained, packs, norms)
    return [finding for finding in found if finding.start < MOST_TOKENS or finding.rule in WHOLE_ROW_RULES]


def _measured(
    read: TokenColumns,
    tokens: Sequence[ShownToken],
    findings: Sequence[RowFinding],
    sequences: Sequence[tuple[int, int]],
    norms: Expectations,
    *,
    packed: bool,
) -> tuple[tuple[Turn, ...], tuple[RowFinding, ...]]:
    """The turns of a row, and what is wrong in them."""
    written = RowTokens(
        read.ids.values.tolist(),
        [token.text for token in tokens],
        [token.special for token in tokens],
        read.trained,
        sequences,
        packed,
    )
    in_content = [finding.start for finding in findings if finding.rule == SPECIAL_TOKEN_IN_CONTENT]
    turns = split_turns(written, norms, in_content)
    return turns, assign_turns(findings, turns, packed=packed)


def _tokens(
    read: TokenColumns, sequences: Sequence[tuple[int, int]], decoder: TokenDecoder | None
) -> tuple[ShownToken, ...]:
    ids = read.ids.values
    pieces = [TokenText(None, False)] * len(ids)
    if decoder is not None:  # one by one: what one sequence ends with, the next does not complete
        pieces = [piece for start, stop in sequences for piece in decoder.pieces(ids[start:stop])]
    wrong = read.wrong.tolist()
    labels = read.labels.tolist() if read.labels is not None else [None] * len(ids)
    trained = read.trained.tolist() if read.trained is not None else [None] * len(ids)
    return tuple(
        ShownToken(value, piece.text, loss, piece.special, label if different else None)
        for value, piece, loss, different, label in zip(ids.tolist(), pieces, trained, wrong, labels, strict=True)
    )


def _notes(
    read: TokenColumns, tokens: Sequence[ShownToken], packs: PackBoundaries | None, *, decoded: bool
) -> Iterator[str]:
    if not tokens:
        yield "this row has no tokens"
    if read.misfit.any():
        yield "labels (or masks) and input_ids differ in length"
    if packs is not None and read.seq_lengths is not None and packs.mismatched.any():
        lengths = read.seq_lengths.values
        sums = f"seq_lengths sum to {int(lengths.sum(dtype=np.int64)):,}, the row has {len(tokens):,} tokens"
        yield sums + (f"; one of them is {int(lengths.min())}" if lengths.min(initial=1) < 1 else "")
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
