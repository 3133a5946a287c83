"""Rows of tokens -> what is wrong with them, many rows at once. No row is looked at alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sftkit.audit import findings
from sftkit.audit.batches import HOLE, batch_of, sequences_of
from sftkit.audit.loss_checks import cut_answers, mismatched_prompts, trained_headers, untrained_rows, untrained_stops
from sftkit.audit.norms import Norms
from sftkit.audit.token_checks import chats_in, doubled_bos, misplaced_specials, missing_bos
from sftkit.rows import IGNORE_INDEX, Ids, Mask, Offsets, Ragged


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
    offsets = ids.offsets if sequences is None else sequences_of(ids, sequences)
    batch = batch_of(ids.values, offsets, trained, norms)
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
    outside = batch.having(HOLE)
    note(findings.IDS_OUTSIDE_VOCABULARY, outside, outside + 1)
    chats = chats_in(batch)
    note(findings.BOS_DOUBLED, *doubled_bos(batch))
    note(findings.BOS_MISSING, *missing_bos(batch, chats))
    misplaced = misplaced_specials(batch, chats)
    note(findings.SPECIAL_TOKEN_IN_CONTENT, misplaced, misplaced + 1)
    if batch.runs is not None:
        unended = untrained_stops(batch, batch.runs)
        note(findings.STOP_TOKEN_UNTRAINED, unended, unended + 1)
        note(findings.ANSWER_CUT, *cut_answers(batch, batch.runs, chats))
        headed = trained_headers(batch, batch.runs, chats, misplaced)
        note(findings.HEADER_TRAINED, headed, headed + 1)
        mismatched = mismatched_prompts(batch, batch.runs, chats, headed)
        note(findings.PROMPT_MISMATCH, mismatched, mismatched + 1)
        untrained = untrained_rows(ids.offsets, offsets, batch.runs)
        if len(untrained):
            nothing = np.zeros(len(untrained), np.int64)
            found[findings.NO_TRAINED_TOKEN] = Fault(untrained, nothing, ids.lengths[untrained])
    return found
