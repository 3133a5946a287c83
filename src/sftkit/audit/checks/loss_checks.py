"""Check which tokens carry a loss: those from the end of a prompt to the end of a stop token, and no others."""

from __future__ import annotations

import numpy as np

from sftkit.audit.checks.token_batch import OPENER, STOP, TokenBatch, TokenRuns
from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.expectations.id_sequences import ConcatenatedRows
from sftkit.core.rows import Mask, Offsets


def untrained_rows(batch: TokenBatch, runs: TokenRuns) -> Offsets:
    """Rows of any length, empty ones included, without a trained token."""
    without = ~(batch.cut_start | batch.cut_end)
    without[runs.rows] = False
    return np.flatnonzero(without)


def untrained_stops(batch: TokenBatch, runs: TokenRuns) -> Offsets:
    """Untrained stop tokens that directly follow a trained run without a stop token at its end."""
    tokens, flags = batch.tokens, batch.flags
    if batch.expectations.origin.stops_masked:
        return np.zeros(0, np.int64)
    ends = runs.ends[runs.ends < tokens.last[runs.rows]]
    untrained = ((flags[ends] & STOP) > 0) & ((flags[ends] & OPENER) == 0) & ((flags[ends - 1] & STOP) == 0)
    unended: Offsets = ends[untrained]
    return unended


def cut_answers(batch: TokenBatch, runs: TokenRuns, chats: Mask) -> tuple[Offsets, Offsets]:
    """Last runs that reach the end of their row without a stop token, as [start, stop) of each."""
    expectations, tokens, flags = batch.expectations, batch.tokens, batch.flags
    nothing = np.zeros(0, np.int64)
    if not expectations.stops or not len(runs.rows):
        return nothing, nothing
    final = np.append(np.flatnonzero(runs.rows[1:] != runs.rows[:-1]), len(runs.rows) - 1)
    starts, ends, rows = runs.starts[final], runs.ends[final], runs.rows[final]
    ending = np.where(chats, expectations.chats_end, expectations.origin.ends) & ~batch.cut_end
    if batch.cut_start.any():  # the rest may hold only what follows a stop token, or not look like a chat
        longest = max(map(len, expectations.tails), default=0)
        ending &= ~batch.cut_start | ((chats | expectations.chats_end) & (tokens.last - tokens.first > longest))
    open_ = ending[rows] & (ends == tokens.last[rows]) & ((flags[ends - 1] & STOP) == 0)
    for tail in expectations.tails:  # if everything is trained, so is what follows the last stop token
        before = ends - len(tail) - 1
        ended = tokens.precedes(ends, rows, tail) & (before >= tokens.first[rows])
        open_ &= ~(ended & ((flags[np.maximum(before, 0)] & STOP) > 0))
    return starts[open_], ends[open_]


def trained_headers(batch: TokenBatch, runs: TokenRuns, chats: Mask, misplaced: Offsets) -> Offsets:
    """Trained tokens of message headers: special tokens anywhere, other tokens where a run begins inside a header."""
    expectations, tokens, flags = batch.expectations, batch.tokens, batch.flags
    if expectations.origin.trains_all or batch.trained is None or not expectations.prompts:
        return np.zeros(0, np.int64)
    checked = _checked_rows(runs, chats, expectations)
    opening = batch.positions_of(OPENER)
    opening = opening[batch.trained[opening]]
    rows = tokens.rows_of(opening)
    # Some came from the content; next to a cut this is unknown.
    longest = max((len(sequence) for _, sequences in expectations.before for sequence in sequences), default=0)
    near_cut = batch.near_cut_start(opening, rows, longest) | (batch.cut_end[rows] & (opening == tokens.last[rows] - 1))
    opening = opening[checked[rows] & ~near_cut & ~np.isin(opening, misplaced)]
    # A model that stops with the header of the next message has to generate it.
    following = np.minimum(opening + 1, len(flags) - 1)
    continues = (opening + 1 < tokens.last[tokens.rows_of(opening)]) & batch.trained[following]
    opening = opening[((flags[opening] & STOP) == 0) | continues]
    starts = runs.starts[checked[runs.rows] & ~_may_lack_prompt(batch, runs)]
    if expectations.origin.other_roles_trained:  # their headers are no prompts
        starts = starts[:0]
    starts = starts[~_follows_prompt(tokens, starts, tokens.rows_of(starts), expectations)]
    begun = np.zeros(len(starts), np.bool_)
    for header in (*expectations.prompts, *expectations.headers):
        begun |= tokens.surrounds(starts, header)
    return np.union1d(opening, starts[begun])


def mismatched_prompts(batch: TokenBatch, runs: TokenRuns, chats: Mask, header_tokens: Offsets) -> Offsets:
    """First tokens of answers that do not directly follow the prompt."""
    expectations, tokens = batch.expectations, batch.tokens
    origin = expectations.origin
    if origin.trains_all or origin.other_roles_trained or not expectations.prompts:
        return np.zeros(0, np.int64)
    checked = _checked_rows(runs, chats, expectations)
    correct = (
        _follows_prompt(tokens, runs.starts, runs.rows, expectations)
        | ~checked[runs.rows]
        | _may_lack_prompt(batch, runs)
    )
    holds_header = np.searchsorted(header_tokens, runs.ends) > np.searchsorted(header_tokens, runs.starts)
    suspects = np.flatnonzero(~correct & ~holds_header)
    if not len(suspects):
        return suspects
    starts = runs.starts[suspects]
    stops = batch.positions_of(STOP | OPENER)
    # A turn may be trained in several parts: later parts continue within the same turn.
    earlier = suspects - 1
    same_row = (earlier >= 0) & (runs.rows[earlier] == runs.rows[suspects])
    between = np.searchsorted(stops, starts) - np.searchsorted(stops, runs.ends[earlier] - 1)
    correct = same_row & (between == 0)
    if expectations.origin.parts_masked:
        ends = np.unique(np.concatenate([tokens.ends_of(prompt) for prompt in expectations.prompts]))
        if len(ends):
            place = np.searchsorted(ends, starts, side="right") - 1
            prompt = ends[np.maximum(place, 0)]
            inside = (place >= 0) & (tokens.rows_of(np.maximum(prompt - 1, 0)) == runs.rows[suspects])
            stops = batch.positions_of(STOP)
            correct |= inside & (np.searchsorted(stops, starts) == np.searchsorted(stops, prompt))
    wrong: Offsets = starts[~correct]
    return wrong


def _checked_rows(runs: TokenRuns, chats: Mask, expectations: Expectations) -> Mask:
    """Rows whose loss is checked against prompts and headers."""
    return chats & ~runs.whole if expectations.origin.trains_all is None else chats


def _may_lack_prompt(batch: TokenBatch, runs: TokenRuns) -> Mask:
    """Runs whose prompt may have been cut off.

    These are the runs before the first stop token that is farther from the cut start of a row than any prompt is long.
    """
    if not batch.cut_start.any():
        return np.zeros(len(runs.rows), np.bool_)
    longest = max(map(len, batch.expectations.prompts), default=0)
    stops = batch.positions_of(STOP)
    begin = np.minimum(batch.tokens.first[runs.rows] + longest, runs.starts)
    torn: Mask = batch.cut_start[runs.rows] & (np.searchsorted(stops, runs.starts) == np.searchsorted(stops, begin))
    return torn


def _follows_prompt(tokens: ConcatenatedRows, positions: Offsets, rows: Offsets, expectations: Expectations) -> Mask:
    """Whether each position directly follows a prompt."""
    found = np.zeros(len(positions), np.bool_)
    for prompt in expectations.prompts:
        found |= tokens.precedes(positions, rows, prompt)
    return found
