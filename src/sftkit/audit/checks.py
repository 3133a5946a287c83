"""Rows of tokens -> what is wrong with them, many rows at once. No row is looked at alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sftkit.audit import findings
from sftkit.audit.matching import Stretch
from sftkit.audit.norms import CONVERSATIONS, PAIRS, UNKNOWN, Norms
from sftkit.rows import IGNORE_INDEX, Ids, Mask, Offsets, Ragged, offsets_of

_STOP, _OPENER, _FOREIGN, _SPECIAL, _AFTER, _BEFORE, _HOLE = (1 << bit for bit in range(7))


@dataclass(frozen=True)
class Fault:
    """The places where rows break a rule, in the order of the rows.

    rows: the row of each place. starts, stops: its tokens, [start, stop) within the row. All int64, shape (places,).
    """

    rows: Offsets
    starts: Offsets
    stops: Offsets


Faults = Mapping[str, Fault]
"""By the names of rules; a rule that no row breaks is not there."""


def check_row(ids: Ids, labels: Ids | None, trained: Mask | None, norms: Norms) -> list[tuple[str, int, int]]:
    """What is wrong with one row: (rule, first token, token after the last), in the order of the tokens."""
    faults = check(Ragged(ids, np.array([0, len(ids)], np.int64)), labels, trained, norms)
    places = [
        (start, stop, rule)
        for rule, fault in faults.items()
        for start, stop in zip(fault.starts.tolist(), fault.stops.tolist(), strict=True)
    ]
    return [(rule, start, stop) for start, stop, rule in sorted(places)]


def check(
    ids: Ragged, labels: Ids | None, trained: Mask | None, norms: Norms, sequences: Ragged | None = None
) -> Faults:
    """Check some rows.

    Args:
        ids: the rows.
        labels: int32, shape (tokens,); None where masks say what carries a loss, or nothing.
        trained: which tokens carry a loss, bool, shape (tokens,); None when unknown.
        norms: what right rows look like.
        sequences: lengths of the sequences that share each row, for packs: each is checked like a row of its own.
    """
    offsets = ids.offsets if sequences is None else _packed(ids, sequences)
    batch = _batch(ids.values, offsets, trained, norms)
    found: dict[str, Fault] = {}

    def note(rule: str, starts: Offsets, stops: Offsets) -> None:
        if len(starts):
            order = np.argsort(starts, kind="stable")
            starts, stops = starts[order], stops[order]
            rows = np.searchsorted(ids.offsets, starts, side="right") - 1
            # An empty row is no row of any token; its place is where the next one begins.
            found[rule] = Fault(rows, starts - ids.offsets[rows], stops - ids.offsets[rows])

    if labels is not None:
        wrong = labels != ids.values
        wrong &= labels != IGNORE_INDEX if trained is None else trained
        different = np.flatnonzero(wrong)
        note(findings.LABELS_DIFFER, different, different + 1)
    outside = batch.having(_HOLE)
    note(findings.IDS_OUTSIDE_VOCABULARY, outside, outside + 1)
    chats = _chats(batch)
    note(findings.BOS_DOUBLED, *_bos_doubled(batch))
    note(findings.BOS_MISSING, *_bos_missing(batch, chats))
    misplaced = _misplaced(batch, chats)
    note(findings.SPECIAL_TOKEN_IN_CONTENT, misplaced, misplaced + 1)
    if batch.runs is not None:
        unended = _stops_untrained(batch, batch.runs)
        note(findings.STOP_TOKEN_UNTRAINED, unended, unended + 1)
        note(findings.ANSWER_CUT, *_cut(batch, batch.runs, chats))
        headed = _headers_trained(batch, batch.runs, chats, misplaced)
        note(findings.HEADER_TRAINED, headed, headed + 1)
        mismatched = _mismatched(batch, batch.runs, chats, headed)
        note(findings.PROMPT_MISMATCH, mismatched, mismatched + 1)
        untrained = _untrained(ids.offsets, offsets, batch.runs)
        if len(untrained):
            nothing = np.zeros(len(untrained), np.int64)
            found[findings.NO_TRAINED_TOKEN] = Fault(untrained, nothing, ids.lengths[untrained])
    return found


@dataclass(frozen=True)
class _Runs:
    """Stretches of trained tokens, [starts, ends) of all tokens, ascending; no run goes on from one row to the next.

    rows: of each run. whole: rows of which everything is trained, bool, shape (rows,).
    """

    starts: Offsets
    ends: Offsets
    rows: Offsets
    whole: Mask


@dataclass(frozen=True)
class _Batch:
    """Rows (or packed sequences), what their tokens are, and which of them carry a loss.

    flags: of each token, uint8, shape (tokens,). marked, marks, marked_rows: positions of the tokens that have flags,
    these flags, and their rows; all that is looked for among special tokens is looked for there.
    """

    norms: Norms
    text: Stretch
    flags: npt.NDArray[np.uint8]
    marked: Offsets
    marks: npt.NDArray[np.uint8]
    marked_rows: Offsets
    trained: Mask | None
    runs: _Runs | None

    def having(self, flag: int) -> Offsets:
        """The positions of tokens that have one of some flags, ascending."""
        return self.marked[(self.marks & flag) > 0]


def _batch(values: Ids, offsets: Offsets, trained: Mask | None, norms: Norms) -> _Batch:
    table = _table(norms)
    size = len(table)
    if not len(values):
        flags = np.zeros(0, np.uint8)
    elif norms.vocabulary_size is None:
        flags = np.zeros(len(values), np.uint8)
    elif values.min() < 0 or values.max() >= size:
        foreign = (values < 0) | (values >= size)
        flags = table[np.where(foreign, 0, values)]
        flags[foreign] = _HOLE
    else:
        flags = table.take(values, mode="clip")  # faster than to have each of them looked at again
    text = Stretch(values, offsets, *_bounds(values, offsets, norms))
    runs = None
    if trained is not None:
        trained, runs = _runs(trained, text)
    marked = np.flatnonzero(flags != 0)
    return _Batch(norms, text, flags, marked, flags[marked], text.rows_of_many(marked), trained, runs)


@lru_cache(maxsize=8)
def _table(norms: Norms) -> npt.NDArray[np.uint8]:
    """What each id is, by id."""
    table = np.zeros(norms.vocabulary_size or 1, np.uint8)
    for flag, ids in (
        (_STOP, norms.stops),
        (_OPENER, norms.openers),
        (_FOREIGN, norms.foreign),
        (_SPECIAL, norms.special),
        (_AFTER, [token for token, _ in norms.after]),
        (_BEFORE, [token for token, _ in norms.before]),
        (_HOLE, norms.holes),
    ):
        known = [value for value in ids if 0 <= value < len(table)]
        table[known] |= flag
    return table


def _packed(ids: Ragged, sequences: Ragged) -> Offsets:
    """Offsets of the sequences of packs; a row whose lengths do not sum up to its own is one sequence."""
    running = np.concatenate(([0], np.cumsum(sequences.values, dtype=np.int64)))
    totals = running[sequences.offsets[1:]] - running[sequences.offsets[:-1]]
    odd = sequences.sums(sequences.values < 0) > 0
    if np.array_equal(totals, ids.lengths) and not odd.any():
        return offsets_of(sequences.values.astype(np.int64))
    fits = (totals == ids.lengths) & ~odd
    parts = [
        sequences[row].astype(np.int64) if fits[row] else np.array([length], np.int64)
        for row, length in enumerate(ids.lengths.tolist())
    ]
    return offsets_of(np.concatenate([np.zeros(0, np.int64), *parts]))


def _bounds(values: Ids, offsets: Offsets, norms: Norms) -> tuple[Offsets, Offsets]:
    """Where each row begins and ends, padding left out. Padding with a stop token or a BOS cannot be told from it."""
    first, last = offsets[:-1], offsets[1:]
    pad = norms.pad
    filled = last > first
    if pad is None or pad in norms.stops or pad == norms.bos or not filled.any():
        return first, last
    if not (values[first[filled]] == pad).any() and not (values[last[filled] - 1] == pad).any():
        return first, last
    content = np.flatnonzero(values != pad)
    begin, end = np.searchsorted(content, first), np.searchsorted(content, last)
    held = end > begin
    content = np.append(content, 0)
    return np.where(held, content[np.minimum(begin, len(content) - 1)], first), np.where(
        held, content[end - 1] + 1, first
    )


def _runs(trained: Mask, text: Stretch) -> tuple[Mask, _Runs]:
    """Trained stretches. The first position of a row counts for nothing: no token predicts it."""
    trained = trained.copy()
    filled = text.offsets[:-1][np.diff(text.offsets) > 0]
    trained[filled] = False
    edges = np.flatnonzero(trained[1:] != trained[:-1]) + 1  # the first token of all is not trained
    if len(edges) % 2:
        edges = np.append(edges, len(trained))
    starts, ends = edges[0::2], edges[1::2]
    rows = text.rows_of_many(starts)
    whole = np.zeros(len(text.first), np.bool_)
    whole[rows[(starts == text.first[rows] + 1) & (ends == text.last[rows])]] = True
    return trained, _Runs(starts, ends, rows, whole)


def _untrained(row_offsets: Offsets, offsets: Offsets, runs: _Runs) -> Offsets:
    """Rows in which a sequence (of any length, none too) has no trained token."""
    without = np.ones(len(offsets) - 1, np.bool_)
    without[runs.rows] = False
    if len(offsets) == len(row_offsets):
        return np.flatnonzero(without)
    return np.unique(np.searchsorted(row_offsets, offsets[:-1][without], side="right") - 1)


def _chats(batch: _Batch) -> Mask:
    """Which rows are measured as conversations, bool, shape (rows,)."""
    norms, text = batch.norms, batch.text
    rows = len(text.first)
    if norms.making.kind == CONVERSATIONS:
        return np.ones(rows, np.bool_)
    chats = np.zeros(rows, np.bool_)
    if norms.openers and norms.making.kind != PAIRS:
        chats[batch.marked_rows[(batch.marks & _OPENER) > 0]] = True
        return chats
    for prompt in norms.prompts:  # pairs may be written in the form of the template
        chats[text.rows_of(text.ends_of(prompt) - 1)] = True
    return chats


def _bos_doubled(batch: _Batch) -> tuple[Offsets, Offsets]:
    norms, text = batch.norms, batch.text
    nothing = np.zeros(0, np.int64)
    if norms.bos is None or norms.bos == norms.pad or norms.bos in norms.stops:
        return nothing, nothing
    first = text.first[text.last - text.first > 1]
    doubled = first[(text.values[first] == norms.bos) & (text.values[first + 1] == norms.bos)]
    return doubled, doubled + 2


def _bos_missing(batch: _Batch, chats: Mask) -> tuple[Offsets, Offsets]:
    norms, text = batch.norms, batch.text
    by_template = chats if norms.making.kind in (CONVERSATIONS, UNKNOWN) else np.zeros_like(chats)
    wanted = np.where(by_template, norms.bos_in_chats, norms.bos_in_text)
    first = text.first[(text.last > text.first) & wanted]
    missing = first[text.values[first] != norms.bos] if norms.bos is not None else first[:0]
    return missing, missing + 1


def _misplaced(batch: _Batch, chats: Mask) -> Offsets:
    """Special tokens where the template writes none."""
    norms, text, flags = batch.norms, batch.text, batch.flags
    positions, kinds, rows = batch.marked, batch.marks, batch.marked_rows
    chat, tokens = chats[rows], text.values[positions]
    wrong = chat & ((kinds & _FOREIGN) > 0)
    if norms.making.kind == PAIRS:
        wrong |= ~chat & ((kinds & _SPECIAL) > 0)
    for token, sequences in norms.after:
        suspects = np.flatnonzero(chat & (tokens == token))
        for sequence in sequences:
            suspects = suspects[~text.follows(positions[suspects] + 1, rows[suspects], sequence)]
        # Whoever appends an eos to every row may do so behind a stop token too.
        at = positions[suspects] + 1
        appended = (at + 1 == text.last[rows[suspects]]) & ((flags.take(at, mode="clip") & _STOP) > 0)
        wrong[suspects[~appended]] = True
    for token, sequences in norms.before:
        suspects = np.flatnonzero(chat & (tokens == token))
        for sequence in sequences:
            suspects = suspects[~text.precedes(positions[suspects], rows[suspects], sequence)]
        first = text.first[rows[suspects]]
        begun = (positions[suspects] == first + 1) & (text.values[first] == norms.bos)
        wrong[suspects[~begun]] = True
    # What stands at either edge of a row, others may have put there: a BOS, a second one, an eos.
    positions, tokens, rows = positions[wrong], tokens[wrong], rows[wrong]
    inner = (positions > text.first[rows]) & (positions < text.last[rows] - 1)
    inner &= (positions != text.first[rows] + 1) | (tokens != norms.bos)
    found: Offsets = positions[inner]
    return found


def _stops_untrained(batch: _Batch, runs: _Runs) -> Offsets:
    """Stop tokens without a loss right behind a run that does not end with one."""
    text, flags = batch.text, batch.flags
    ends = runs.ends[runs.ends < text.last[runs.rows]]
    untrained = ((flags[ends] & _STOP) > 0) & ((flags[ends] & _OPENER) == 0) & ((flags[ends - 1] & _STOP) == 0)
    unended: Offsets = ends[untrained]
    return unended


def _cut(batch: _Batch, runs: _Runs, chats: Mask) -> tuple[Offsets, Offsets]:
    """Last runs that reach the end of their row without a stop token: their first and last token."""
    norms, text, flags = batch.norms, batch.text, batch.flags
    nothing = np.zeros(0, np.int64)
    if not norms.stops or not len(runs.rows):
        return nothing, nothing
    final = np.append(np.flatnonzero(runs.rows[1:] != runs.rows[:-1]), len(runs.rows) - 1)
    starts, ends, rows = runs.starts[final], runs.ends[final], runs.rows[final]
    ending = np.where(chats, norms.chats_end, norms.making.ends)
    open_ = ending[rows] & (ends == text.last[rows]) & ((flags[ends - 1] & _STOP) == 0)
    for tail in norms.tails:  # where everything is trained, so is what follows the last stop token
        before = ends - len(tail) - 1
        ended = text.precedes(ends, rows, tail) & (before >= text.first[rows])
        open_ &= ~(ended & ((flags[np.maximum(before, 0)] & _STOP) > 0))
    return starts[open_], ends[open_]


def _headers_trained(batch: _Batch, runs: _Runs, chats: Mask, misplaced: Offsets) -> Offsets:
    """Trained tokens that open a message: special ones anywhere, others where a run begins in a header."""
    norms, text, flags = batch.norms, batch.text, batch.flags
    if norms.making.trains_all or batch.trained is None or not norms.prompts:
        return np.zeros(0, np.int64)
    measured = chats & ~runs.whole if norms.making.trains_all is None else chats
    opening = batch.having(_OPENER)
    opening = opening[batch.trained[opening]]
    opening = opening[measured[text.rows_of(opening)]]
    opening = opening[~np.isin(opening, misplaced)]  # those came from the content
    # Models that stop by the header of the next message have to produce it.
    following = np.minimum(opening + 1, len(flags) - 1)
    goes_on = (opening + 1 < text.last[text.rows_of(opening)]) & batch.trained[following]
    opening = opening[((flags[opening] & _STOP) == 0) | goes_on]
    starts = runs.starts[measured[runs.rows]]
    starts = starts[~_prompted(text, starts, text.rows_of(starts), norms)]
    begun = np.zeros(len(starts), np.bool_)
    for header in (*norms.prompts, *norms.headers):
        begun |= text.surrounds(starts, header)
    return np.union1d(opening, starts[begun])


def _mismatched(batch: _Batch, runs: _Runs, chats: Mask, headed: Offsets) -> Offsets:
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
    stops = batch.having(_STOP | _OPENER)
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
            stops = batch.having(_STOP)
            right |= inside & (np.searchsorted(stops, starts) == np.searchsorted(stops, prompt))
    wrong: Offsets = starts[~right]
    return wrong


def _prompted(text: Stretch, positions: Offsets, rows: Offsets, norms: Norms) -> Mask:
    """Whether each position stands right behind a prompt."""
    found = np.zeros(len(positions), np.bool_)
    for prompt in norms.prompts:
        found |= text.precedes(positions, rows, prompt)
    return found
