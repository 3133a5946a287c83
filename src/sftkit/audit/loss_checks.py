"""Checks of what carries a loss in rows: from the end of a prompt to the end of a stop token, and nothing else."""

from __future__ import annotations

import numpy as np

from sftkit.audit.batches import OPENER, STOP, Batch, Runs
from sftkit.audit.matching import Stretch
from sftkit.audit.norms import Norms
from sftkit.rows import Mask, Offsets


def untrained_rows(row_offsets: Offsets, offsets: Offsets, runs: Runs) -> Offsets:
    """Rows in which a sequence (of any length, none too) has no trained token."""
    without = np.ones(len(offsets) - 1, np.bool_)
    without[runs.rows] = False
    if len(offsets) == len(row_offsets):
        return np.flatnonzero(without)
    return np.unique(np.searchsorted(row_offsets, offsets[:-1][without], side="right") - 1)


def untrained_stops(batch: Batch, runs: Runs) -> Offsets:
    """Stop tokens without a loss right behind a run that does not end with one."""
    text, flags = batch.text, batch.flags
    ends = runs.ends[runs.ends < text.last[runs.rows]]
    untrained = ((flags[ends] & STOP) > 0) & ((flags[ends] & OPENER) == 0) & ((flags[ends - 1] & STOP) == 0)
    unended: Offsets = ends[untrained]
    return unended


def cut_answers(batch: Batch, runs: Runs, chats: Mask) -> tuple[Offsets, Offsets]:
    """Last runs that reach the end of their row without a stop token: their first and last token."""
    norms, text, flags = batch.norms, batch.text, batch.flags
    nothing = np.zeros(0, np.int64)
    if not norms.stops or not len(runs.rows):
        return nothing, nothing
    final = np.append(np.flatnonzero(runs.rows[1:] != runs.rows[:-1]), len(runs.rows) - 1)
    starts, ends, rows = runs.starts[final], runs.ends[final], runs.rows[final]
    ending = np.where(chats, norms.chats_end, norms.making.ends)
    open_ = ending[rows] & (ends == text.last[rows]) & ((flags[ends - 1] & STOP) == 0)
    for tail in norms.tails:  # where everything is trained, so is what follows the last stop token
        before = ends - len(tail) - 1
        ended = text.precedes(ends, rows, tail) & (before >= text.first[rows])
        open_ &= ~(ended & ((flags[np.maximum(before, 0)] & STOP) > 0))
    return starts[open_], ends[open_]


def trained_headers(batch: Batch, runs: Runs, chats: Mask, misplaced: Offsets) -> Offsets:
    """Trained tokens that open a message: special ones anywhere, others where a run begins in a header."""
    norms, text, flags = batch.norms, batch.text, batch.flags
    if norms.making.trains_all or batch.trained is None or not norms.prompts:
        return np.zeros(0, np.int64)
    measured = chats & ~runs.whole if norms.making.trains_all is None else chats
    opening = batch.having(OPENER)
    opening = opening[batch.trained[opening]]
    opening = opening[measured[text.rows_of(opening)]]
    opening = opening[~np.isin(opening, misplaced)]  # those came from the content
    # Models that stop by the header of the next message have to produce it.
    following = np.minimum(opening + 1, len(flags) - 1)
    goes_on = (opening + 1 < text.last[text.rows_of(opening)]) & batch.trained[following]
    opening = opening[((flags[opening] & STOP) == 0) | goes_on]
    starts = runs.starts[measured[runs.rows]]
    starts = starts[~_prompted(text, starts, text.rows_of(starts), norms)]
    begun = np.zeros(len(starts), np.bool_)
    for header in (*norms.prompts, *norms.headers):
        begun |= text.surrounds(starts, header)
    return np.union1d(opening, starts[begun])


def mismatched_prompts(batch: Batch, runs: Runs, chats: Mask, headed: Offsets) -> Offsets:
    """First tokens of answers that do not stand behind the prompt."""
    norms, text = batch.norms, batch.text
    if norms.making.trains_all or not norms.prompts:
        return np.zeros(0, np.int64)
    measured = chats & ~runs.whole if norms.making.trains_all is None else chats
    right = _prompted(text, runs.starts, runs.rows, norms) | ~measured[runs.rows]
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
    if norms.making.reasoning_masked:
        ends = np.unique(np.concatenate([text.ends_of(prompt) for prompt in norms.prompts]))
        if len(ends):
            place = np.searchsorted(ends, starts, side="right") - 1
            prompt = ends[np.maximum(place, 0)]
            inside = (place >= 0) & (text.rows_of(np.maximum(prompt - 1, 0)) == runs.rows[suspects])
            stops = batch.having(STOP)
            right |= inside & (np.searchsorted(stops, starts) == np.searchsorted(stops, prompt))
    wrong: Offsets = starts[~right]
    return wrong


def _prompted(text: Stretch, positions: Offsets, rows: Offsets, norms: Norms) -> Mask:
    """Whether each position stands right behind a prompt."""
    found = np.zeros(len(positions), np.bool_)
    for prompt in norms.prompts:
        found |= text.precedes(positions, rows, prompt)
    return found
