"""Reads rows at given locations and prepares them for display."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np
import pyarrow as pa

from sftkit.audit.checks.packs import PackBoundaries
from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.findings import SPECIAL_TOKEN_IN_CONTENT
from sftkit.core.rows import Ragged
from sftkit.core.token_kinds import TRAINED_KINDS
from sftkit.inspection.columns.column_layout import ColumnLayout, iter_row_groups, read_layout
from sftkit.inspection.columns.text_columns import text_values
from sftkit.inspection.columns.token_values import TokenColumns, split_packing, token_columns
from sftkit.inspection.summary.dataset_summary import fraction, source_name
from sftkit.inspection.view.decoding import TokenDecoder, TokenText
from sftkit.inspection.view.row_findings import WHOLE_ROW_RULES, RowFinding, assign_turns, find_in_row
from sftkit.inspection.view.selection import RowLocation
from sftkit.inspection.view.shown_row import ShownRow, ShownToken
from sftkit.inspection.view.turns import RowTokens, Turn, split_turns
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import ShardSet
from sftkit.storage.paths import relative_name

_KIND_LABELS = {int(kind): kind.label for kind in TRAINED_KINDS}

MAX_TOKENS = 1 << 18
"""Tokens of a row that are shown; the counts and findings of a longer row are still those of all its tokens."""


def read_rows(
    locations: Sequence[RowLocation],
    shards: ShardSet,
    decoder: TokenDecoder | None,
    expectations: Expectations | None,
    text_fields: Sequence[str],
) -> list[ShownRow]:
    """Read rows, one row group in memory at a time.

    Args:
        locations: which rows.
        shards: the shards that they are in.
        decoder: decodes tokens; None shows ids only.
        expectations: what correct rows look like; None skips turns and findings.
        text_fields: names that a text column may have.

    Raises:
        SourceError: a file cannot be read.
    """
    rows = []
    for (path, group), located in groupby(locations, key=lambda location: (location.path, location.group)):
        layout = read_layout(path, text_fields)
        table = next(iter_row_groups(layout, group))
        rows += [
            _read_row(table.slice(location.group_row, 1), layout, location, shards, decoder, expectations)
            for location in located
        ]
    return rows


def _read_row(
    table: pa.Table,
    layout: ColumnLayout,
    location: RowLocation,
    shards: ShardSet,
    decoder: TokenDecoder | None,
    expectations: Expectations | None,
) -> ShownRow:
    split, row, shard_row = location.split, location.row, location.shard_row
    shard = relative_name(location.path, shards.root)
    if not layout.tokens:
        text = text_values(table, layout)[0]
        return ShownRow(split, row, shard, shard_row, len(text), None, None, (), (), text, (), (), ())
    whole = token_columns(table, layout)
    head = _head(whole)
    packing = split_packing(shards.manifest, split)
    packs = head.packs(packing)
    sequences = [(0, len(head.ids.values))] if packs is None else list(pairwise(packs.offsets.tolist()))
    tokens = _tokens(head, sequences, decoder)
    length = len(whole.ids.values)
    trained = None if whole.trained is None else int(np.count_nonzero(whole.trained))
    notes = [f"only the first {MAX_TOKENS:,} of its tokens are shown"] if length > MAX_TOKENS else []
    turns: tuple[Turn, ...] = ()
    findings: tuple[RowFinding, ...] = ()
    if expectations is not None:
        found = _find(whole, whole.packs(packing), expectations)
        turns, findings = _split(head, tokens, found, sequences, expectations, packed=packs is not None)
    return ShownRow(
        split=split,
        row=row,
        shard=shard,
        shard_row=shard_row,
        length=length,
        trained_tokens=trained,
        trained_share=fraction(trained, length),
        seq_lengths=_known_lengths(packs),
        notes=(*notes, *_notes(head, tokens, packs, decoded=decoder is not None)),
        text=None,
        tokens=tokens,
        turns=turns,
        findings=findings,
        sources=_source_names(head, shards.manifest),
    )


def _source_names(row: TokenColumns, manifest: Manifest | None) -> tuple[str, ...]:
    """Return the data set of each sequence of a row; its number where the manifest has no name for it."""
    return () if row.sources is None else tuple(source_name(number, manifest) for number in row.sources.values.tolist())


def _head(row: TokenColumns) -> TokenColumns:
    """Return the first MAX_TOKENS tokens of a row."""
    if len(row.ids.values) <= MAX_TOKENS:
        return row
    seq_lengths = None
    if row.seq_lengths is not None:
        lengths = row.seq_lengths.values
        ends = np.minimum(np.cumsum(lengths, dtype=np.int64), MAX_TOKENS)
        kept = np.diff(ends, prepend=0).astype(lengths.dtype)
        seq_lengths = Ragged.from_lengths(kept[kept > 0], np.array([np.count_nonzero(kept > 0)]))
    return TokenColumns(
        ids=row.ids.truncate(np.array([MAX_TOKENS])),
        labels=None if row.labels is None else row.labels[:MAX_TOKENS],
        trained=None if row.trained is None else row.trained[:MAX_TOKENS],
        length_mismatch=row.length_mismatch,
        seq_lengths=seq_lengths,
        kinds=None if row.kinds is None else row.kinds[:MAX_TOKENS],
        weights=None if row.weights is None else row.weights[:MAX_TOKENS],
        sources=row.sources,
    )


def _known_lengths(packs: PackBoundaries | None) -> tuple[int, ...]:
    if packs is None or packs.mismatched.any():
        return ()
    return tuple(np.diff(packs.offsets).tolist())


def _find(row: TokenColumns, packs: PackBoundaries | None, expectations: Expectations) -> list[RowFinding]:
    """Return what is wrong with the part of a row that is shown, and with the row as a whole."""
    # Labels of another length than the ids cannot be assigned to tokens.
    labels, trained = (None, None) if row.length_mismatch.any() else (row.labels, row.trained)
    found = find_in_row(row.ids.values, labels, trained, packs, expectations)
    return [finding for finding in found if finding.start < MAX_TOKENS or finding.rule in WHOLE_ROW_RULES]


def _split(
    row: TokenColumns,
    tokens: Sequence[ShownToken],
    findings: Sequence[RowFinding],
    sequences: Sequence[tuple[int, int]],
    expectations: Expectations,
    *,
    packed: bool,
) -> tuple[tuple[Turn, ...], tuple[RowFinding, ...]]:
    """Split a row into turns, and assign its findings to them."""
    row_tokens = RowTokens(
        row.ids.values.tolist(),
        [token.text for token in tokens],
        [token.special for token in tokens],
        row.trained,
        sequences,
        packed,
    )
    in_content = [finding.start for finding in findings if finding.rule == SPECIAL_TOKEN_IN_CONTENT]
    turns = split_turns(row_tokens, expectations, in_content)
    return turns, assign_turns(findings, turns, packed=packed)


def _tokens(
    row: TokenColumns, sequences: Sequence[tuple[int, int]], decoder: TokenDecoder | None
) -> tuple[ShownToken, ...]:
    ids = row.ids.values
    texts = [TokenText(None, False)] * len(ids)
    if decoder is not None:  # sequence by sequence: a character cannot span two of them
        texts = [text for start, stop in sequences for text in decoder.token_texts(ids[start:stop])]
    # Labels of another length than the ids cannot be assigned to tokens.
    labels = (ids if row.labels is None or row.length_mismatch.any() else row.labels).tolist()
    trained = row.trained.tolist() if row.trained is not None else [None] * len(ids)
    kinds: Sequence[str | None] = [None] * len(ids)
    if row.kinds is not None and row.trained is not None:
        kinds = [_KIND_LABELS.get(kind) for kind in (row.kinds * row.trained).tolist()]
    weights: Sequence[float | None] = [None] * len(ids)
    if row.weights is not None and row.trained is not None:
        weights = [weight if known else None for weight, known in zip(row.weights.tolist(), trained, strict=True)]
    return tuple(
        ShownToken(value, text.text, is_trained, text.special, label if is_trained else None, kind, weight)
        for value, text, is_trained, label, kind, weight in zip(
            ids.tolist(), texts, trained, labels, kinds, weights, strict=True
        )
    )


def _notes(
    row: TokenColumns, tokens: Sequence[ShownToken], packs: PackBoundaries | None, *, decoded: bool
) -> Iterator[str]:
    if not tokens:
        yield "this row has no tokens"
    if row.length_mismatch.any():
        yield "labels (or masks) and input_ids differ in length"
    if packs is not None and row.seq_lengths is not None and packs.mismatched.any():
        lengths = row.seq_lengths.values
        sums = f"seq_lengths sum to {int(lengths.sum(dtype=np.int64)):,}, the row has {len(tokens):,} tokens"
        yield sums + (f"; one of them is {int(lengths.min())}" if lengths.min(initial=1) < 1 else "")
    wrong = [(position, token) for position, token in enumerate(tokens) if token.is_mislabelled]
    if wrong:
        position, token = wrong[0]
        yield (
            f"{len(wrong):,} trained tokens have a label that differs from their id, the first at position "
            f"{position:,}: id {token.id}, label {token.label}"
        )
    unknown = [token.id for token in tokens if token.text is None]
    if decoded and unknown:
        yield f"{len(unknown):,} ids are not in the tokenizer's vocabulary, the first is {unknown[0]}"
