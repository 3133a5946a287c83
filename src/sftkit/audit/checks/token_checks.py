"""Check the tokens of rows, whatever carries a loss: the BOS, and special tokens in the wrong places."""

from __future__ import annotations

import numpy as np

from sftkit.audit.checks.token_batch import FOREIGN, OPENER, SPECIAL, STOP, TokenBatch
from sftkit.core.row_kinds import RowKind
from sftkit.core.rows import Mask, Offsets


def chats_in(batch: TokenBatch) -> Mask:
    """Which rows are checked as conversations, bool, shape (rows,)."""
    expectations, tokens = batch.expectations, batch.tokens
    rows = len(tokens.first)
    if expectations.origin.kind == RowKind.CONVERSATIONS:
        return np.ones(rows, np.bool_)
    chats = np.zeros(rows, np.bool_)
    if expectations.openers and expectations.origin.kind != RowKind.PAIRS:
        chats[batch.marked_rows[(batch.marks & OPENER) > 0]] = True
        return chats
    for prompt in expectations.prompts:  # pairs may be written in the format of the template
        chats[tokens.rows_of(tokens.ends_of(prompt) - 1)] = True
    return chats


def doubled_bos(batch: TokenBatch) -> tuple[Offsets, Offsets]:
    """Rows that begin with two BOS tokens, as [start, stop) of each place."""
    expectations, tokens = batch.expectations, batch.tokens
    nothing = np.zeros(0, np.int64)
    if expectations.bos is None or expectations.bos == expectations.pad or expectations.bos in expectations.stops:
        return nothing, nothing
    first = tokens.first[(tokens.last - tokens.first > 1) & ~batch.cut_start]
    doubled = first[(tokens.values[first] == expectations.bos) & (tokens.values[first + 1] == expectations.bos)]
    return doubled, doubled + 2


def missing_bos(batch: TokenBatch, chats: Mask) -> tuple[Offsets, Offsets]:
    """Rows that lack the BOS of the template or tokenizer, as [start, stop) of their first tokens."""
    expectations, tokens = batch.expectations, batch.tokens
    by_template = (
        chats if expectations.origin.kind in (RowKind.CONVERSATIONS, RowKind.UNKNOWN) else np.zeros_like(chats)
    )
    wanted = np.where(by_template, expectations.bos_in_chats, expectations.bos_in_text) & ~batch.cut_start
    if expectations.origin.kind == RowKind.UNKNOWN and not expectations.bos_in_chats:
        wanted &= chats | ~batch.cut_end  # the tokens that identify a conversation may have been cut off
    first = tokens.first[(tokens.last > tokens.first) & wanted]
    missing = first[tokens.values[first] != expectations.bos] if expectations.bos is not None else first[:0]
    return missing, missing + 1


def misplaced_specials(batch: TokenBatch, chats: Mask) -> Offsets:
    """Special tokens where the template never writes them."""
    expectations, tokens, flags = batch.expectations, batch.tokens, batch.flags
    positions, kinds, rows = batch.marked, batch.marks, batch.marked_rows
    chat, ids = chats[rows], tokens.values[positions]
    wrong = chat & ((kinds & FOREIGN) > 0)
    if expectations.origin.kind == RowKind.PAIRS:  # if a row is cut, the template may have written it
        whole = ~(batch.cut_start | batch.cut_end)
        wrong |= (~chat & whole[rows]) & ((kinds & SPECIAL) > 0)
    for token, sequences in expectations.after:
        suspects = np.flatnonzero(chat & (ids == token))
        for sequence in sequences:
            suspects = suspects[~tokens.follows(positions[suspects] + 1, rows[suspects], sequence)]
        # A tool that appends an eos to every row may do so after a stop token, too.
        at = positions[suspects] + 1
        appended = (at + 1 == tokens.last[rows[suspects]]) & ((flags.take(at, mode="clip") & STOP) > 0)
        wrong[suspects[~appended]] = True
    for token, sequences in expectations.before:
        suspects = np.flatnonzero(chat & (ids == token))
        for sequence in sequences:
            suspects = suspects[~tokens.precedes(positions[suspects], rows[suspects], sequence)]
        cut_off = batch.near_cut_start(positions[suspects], rows[suspects], max(map(len, sequences)))
        suspects = suspects[~cut_off]
        first = tokens.first[rows[suspects]]
        begun = (positions[suspects] == first + 1) & (tokens.values[first] == expectations.bos)
        wrong[suspects[~begun]] = True
    # Tokens at the edges of a row may come from other tools: a BOS, a second one, an eos.
    positions, ids, rows = positions[wrong], ids[wrong], rows[wrong]
    inner = (positions > tokens.first[rows]) & (positions < tokens.last[rows] - 1)
    inner &= (positions != tokens.first[rows] + 1) | (ids != expectations.bos)
    found: Offsets = positions[inner]
    return found
