"""Checks of the tokens of rows, whatever carries a loss: their beginning, and special tokens where none belong."""

from __future__ import annotations

import numpy as np

from sftkit.audit.checks.token_batch import FOREIGN, OPENER, SPECIAL, STOP, TokenBatch
from sftkit.audit.expectations.expected import CONVERSATIONS, PAIRS, UNKNOWN
from sftkit.core.rows import Mask, Offsets


def chats_in(batch: TokenBatch) -> Mask:
    """Which rows are measured as conversations, bool, shape (rows,)."""
    norms, text = batch.norms, batch.text
    rows = len(text.first)
    if norms.origin.kind == CONVERSATIONS:
        return np.ones(rows, np.bool_)
    chats = np.zeros(rows, np.bool_)
    if norms.openers and norms.origin.kind != PAIRS:
        chats[batch.marked_rows[(batch.marks & OPENER) > 0]] = True
        return chats
    for prompt in norms.prompts:  # pairs may be written in the form of the template
        chats[text.rows_of(text.ends_of(prompt) - 1)] = True
    return chats


def doubled_bos(batch: TokenBatch) -> tuple[Offsets, Offsets]:
    """Where rows begin with two BOS tokens: [start, stop) of each."""
    norms, text = batch.norms, batch.text
    nothing = np.zeros(0, np.int64)
    if norms.bos is None or norms.bos == norms.pad or norms.bos in norms.stops:
        return nothing, nothing
    first = text.first[(text.last - text.first > 1) & ~batch.cut_start]
    doubled = first[(text.values[first] == norms.bos) & (text.values[first + 1] == norms.bos)]
    return doubled, doubled + 2


def missing_bos(batch: TokenBatch, chats: Mask) -> tuple[Offsets, Offsets]:
    """Where rows begin without the BOS that template or tokenizer writes: their first tokens."""
    norms, text = batch.norms, batch.text
    by_template = chats if norms.origin.kind in (CONVERSATIONS, UNKNOWN) else np.zeros_like(chats)
    wanted = np.where(by_template, norms.bos_in_chats, norms.bos_in_text) & ~batch.cut_start
    if norms.origin.kind == UNKNOWN and not norms.bos_in_chats:
        wanted &= chats | ~batch.cut_end  # what would tell a conversation may have been cut off
    first = text.first[(text.last > text.first) & wanted]
    missing = first[text.values[first] != norms.bos] if norms.bos is not None else first[:0]
    return missing, missing + 1


def misplaced_specials(batch: TokenBatch, chats: Mask) -> Offsets:
    """Special tokens where the template writes none."""
    norms, text, flags = batch.norms, batch.text, batch.flags
    positions, kinds, rows = batch.marked, batch.marks, batch.marked_rows
    chat, tokens = chats[rows], text.values[positions]
    wrong = chat & ((kinds & FOREIGN) > 0)
    if norms.origin.kind == PAIRS:  # of a torn one nobody knows whether the template wrote it
        whole = ~(batch.cut_start | batch.cut_end)
        wrong |= (~chat & whole[rows]) & ((kinds & SPECIAL) > 0)
    for token, sequences in norms.after:
        suspects = np.flatnonzero(chat & (tokens == token))
        for sequence in sequences:
            suspects = suspects[~text.follows(positions[suspects] + 1, rows[suspects], sequence)]
        # Whoever appends an eos to every row may do so behind a stop token too.
        at = positions[suspects] + 1
        appended = (at + 1 == text.last[rows[suspects]]) & ((flags.take(at, mode="clip") & STOP) > 0)
        wrong[suspects[~appended]] = True
    for token, sequences in norms.before:
        suspects = np.flatnonzero(chat & (tokens == token))
        for sequence in sequences:
            suspects = suspects[~text.precedes(positions[suspects], rows[suspects], sequence)]
        torn = batch.near_tear(positions[suspects], rows[suspects], max(map(len, sequences)))
        suspects = suspects[~torn]
        first = text.first[rows[suspects]]
        begun = (positions[suspects] == first + 1) & (text.values[first] == norms.bos)
        wrong[suspects[~begun]] = True
    # What stands at either edge of a row, others may have put there: a BOS, a second one, an eos.
    positions, tokens, rows = positions[wrong], tokens[wrong], rows[wrong]
    inner = (positions > text.first[rows]) & (positions < text.last[rows] - 1)
    inner &= (positions != text.first[rows] + 1) | (tokens != norms.bos)
    found: Offsets = positions[inner]
    return found
