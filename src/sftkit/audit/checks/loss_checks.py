"""Checks of what carries a loss in rows: from the end of a prompt to the end of a stop token, and nothing else."""

from __future__ import annotations

import numpy as np

from sftkit.audit.checks.token_batch import OPENER, STOP, TokenBatch, TokenRuns
from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.expectations.id_sequences import ConcatenatedRows
from sftkit.core.rows import Mask, Offsets


def untrained_rows(batch: TokenBatch, runs: TokenRuns) -> Offsets:
    """Rows (of any length, none too) without a trained token."""
    without = ~(batch.cut_start | batch.cut_end)
    without[runs.rows] = False
    return np.flatnonzero(without)


def untrained_stops(batch: TokenBatch, runs: TokenRuns) -> Offsets:
    """Stop tokens without a loss right behind a run that does not end with one."""
    text, flags = batch.text, batch.flags
    ends = runs.ends[runs.ends < text.last[runs.rows]]
    untrained = ((flags[ends] & STOP) > 0) & ((flags[ends] & OPENER) == 0) & ((flags[ends - 1] & STOP) == 0)
    unended: Offsets = ends[untrained]
    return unended


def cut_answers(batch: TokenBatch, runs: TokenRuns, chats: Mask) -> tuple[Offsets, Offsets]:
    """Last runs that reach the end of their row without a stop token: their first and last token."""
    norms, text, flags = batch.norms, batch.text, batch.flags
    nothing = np.zeros(0, np.int64)
    if not norms.stops or not len(runs.rows):
        return nothing, nothing
    final = np.append(np.flatnonzero(runs.rows[1:] != runs.rows[:-1]), len(runs.rows) - 1)
    starts, ends, rows = runs.starts[final], runs.ends[final], runs.rows[final]
    ending = np.where(chats, norms.chats_end, norms.origin.ends) & ~batch.cut_end
    if batch.cut_start.any():  # what is left may be no more than what follows a stop token, or not look like a chat
        longest = max(map(len, norms.tails), default=0)
        ending &= ~batch.cut_start | ((chats | norms.chats_end) & (text.last - text.first > longest))
    open_ = ending[rows] & (ends == text.last[rows]) & ((flags[ends - 1] & STOP) == 0)
    for tail in norms.tails:  # where everything is trained, so is what follows the last stop token
        before = ends - len(tail) - 1
        ended = text.precedes(ends, rows, tail) & (before >= text.first[rows])
        open_ &= ~(ended & ((flags[np.maximum(before, 0)] & STOP) > 0))
    return starts[open_], ends[open_]


def trained_headers(batch: TokenBatch, runs: TokenRuns, chats: Mask, misplaced: Offsets) -> Offsets:
    """Trained tokens that open a message: special ones anywhere, others where a run begins in a header."""
    norms, text, flags = batch.norms, batch.text, batch.flags
    if norms.origin.trains_all or batch.trained is None or not norms.prompts:
        return np.zeros(0, np.int64)
    measured = _measured(runs, chats, norms)
    opening = batch.having(OPENER)
    opening = opening[batch.trained[opening]]
    rows = text.rows_of(opening)
    # Some came from the content; next to a cut nobody can tell.
    longest = max((len(sequence) for _, sequences in norms.before for sequence in sequences), default=0)
    near_cut = batch.near_tear(opening, rows, longest) | (batch.cut_end[rows] & (opening == text.last[rows] - 1))
    opening = opening[measured[rows] & ~near_cut & ~np.isin(opening, misplaced)]
    # Models that stop by the header of the next message have to produce it.
    following = np.minimum(opening + 1, len(flags) - 1)
    goes_on = (opening + 1 < text.last[text.rows_of(opening)]) & batch.trained[following]
    opening = opening[((flags[opening] & STOP) == 0) | goes_on]
    starts = runs.starts[measured[runs.rows] & ~_torn(batch, runs)]
    starts = starts[~_prompted(text, starts, text.rows_of(starts), norms)]
    begun = np.zeros(len(starts), np.bool_)
    for header in (*norms.prompts, *norms.headers):
        begun |= text.surrounds(starts, header)
    return np.union1d(opening, starts[begun])


def mismatched_prompts(batch: TokenBatch, runs: TokenRuns, chats: Mask, headed: Offsets) -> Offsets:
    """First tokens of answers that do not stand behind the prompt."""
    norms, text = batch.norms, batch.text
    if norms.origin.trains_all or not norms.prompts:
        return np.zeros(0, np.int64)
    measured = _measured(runs, chats, norms)
    right = _prompted(text, runs.starts, runs.rows, norms) | ~measured[runs.rows] | _torn(batch, runs)
    holds_header = np.searchsorted(headed, runs.ends) > np.searchsorted(headed, runs.starts)
    suspects = np.flatnonzero(~right & ~holds_header)
    if not len(suspects):
        return suspects
    starts = runs.starts[suspects]
    stops = batch.having(STOP | OPENER)
    # A turn may be trained in parts: the ones after the first go on where the turn is.
    earlier = suspects - 1
    same_row = (earlier >= 0) & (runs.rows[earlier] == runs.rows[suspects])
    between = np.searchsorted(stops, starts) - np.searchsorted(stops, runs.ends[earlier] - 1)
    right = same_row & (between == 0)
    if norms.origin.reasoning_masked:
        ends = np.unique(np.concatenate([text.ends_of(prompt) for prompt in norms.prompts]))
        if len(ends):
            place = np.searchsorted(ends, starts, side="right") - 1
            prompt = ends[np.maximum(place, 0)]
            inside = (place >= 0) & (text.rows_of(np.maximum(prompt - 1, 0)) == runs.rows[suspects])
            stops = batch.having(STOP)
            right |= inside & (np.searchsorted(stops, starts) == np.searchsorted(stops, prompt))
    wrong: Offsets = starts[~right]
    return wrong


def _measured(runs: TokenRuns, chats: Mask, norms: Expectations) -> Mask:
    """Rows whose loss is measured by prompts and headers."""
    return chats & ~runs.whole if norms.origin.trains_all is None else chats


def _torn(batch: TokenBatch, runs: TokenRuns) -> Mask:
    """Runs whose prompt may have been cut off: those before the first stop token that stands so far from the beginning
    of a torn row that no prompt reaches from there to the beginning.
    """
    if not batch.cut_start.any():
        return np.zeros(len(runs.rows), np.bool_)
    longest = max(map(len, batch.norms.prompts), default=0)
    stops = batch.having(STOP)
    begin = np.minimum(batch.text.first[runs.rows] + longest, runs.starts)
    torn: Mask = batch.cut_start[runs.rows] & (np.searchsorted(stops, runs.starts) == np.searchsorted(stops, begin))
    return torn


def _prompted(text: ConcatenatedRows, positions: Offsets, rows: Offsets, norms: Expectations) -> Mask:
    """Whether each position stands right behind a prompt."""
    found = np.zeros(len(positions), np.bool_)
    for prompt in norms.prompts:
        found |= text.precedes(positions, rows, prompt)
    return found
