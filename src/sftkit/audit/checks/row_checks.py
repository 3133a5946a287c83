"""Check rows of tokens against all rules, many rows at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sftkit.audit import findings
from sftkit.audit.checks.loss_checks import (
    cut_answers,
    mismatched_prompts,
    trained_headers,
    untrained_rows,
    untrained_stops,
)
from sftkit.audit.checks.packs import PackBoundaries
from sftkit.audit.checks.token_batch import HOLE, batch_of
from sftkit.audit.checks.token_checks import chats_in, doubled_bos, misplaced_specials, missing_bos
from sftkit.audit.expectations.expected import Expectations
from sftkit.core.rows import IGNORE_INDEX, Ids, Mask, Offsets, Ragged


@dataclass(frozen=True)
class Fault:
    """The places where rows break a rule, in the order of the rows. All fields are int64, shape (places,)."""

    rows: Offsets
    """The row of each place."""
    sequences: Offsets
    """The sequence of each place, counted over all packs; the row itself if rows are not packed."""
    starts: Offsets
    """The first token of each place, within its row."""
    stops: Offsets
    """The token after the last one of each place, within its row."""

    def keep(self, keep: Mask) -> Fault:
        """The places where `keep` (bool, shape (places,)) is true."""
        return Fault(self.rows[keep], self.sequences[keep], self.starts[keep], self.stops[keep])


Faults = Mapping[str, Fault]
"""Faults by the name of the rule. Rules that no row breaks are absent."""

_TOKEN_RULES = frozenset({findings.LABELS_DIFFER, findings.IDS_OUTSIDE_VOCABULARY})
"""Rules that do not depend on where sequences begin."""


def check_row(
    ids: Ids, labels: Ids | None, trained: Mask | None, expectations: Expectations, packs: PackBoundaries | None = None
) -> list[tuple[str, int, int]]:
    """Check one row.

    Returns:
        (rule, first token, token after the last) of each fault, in the order of the tokens.
    """
    faults = check_rows(Ragged(ids, np.array([0, len(ids)], np.int64)), labels, trained, expectations, packs)
    places = [
        (start, stop, rule)
        for rule, fault in faults.items()
        for start, stop in zip(fault.starts.tolist(), fault.stops.tolist(), strict=True)
    ]
    return [(rule, start, stop) for start, stop, rule in sorted(places)]


def check_rows(
    ids: Ragged,
    labels: Ids | None,
    trained: Mask | None,
    expectations: Expectations,
    packs: PackBoundaries | None = None,
) -> Faults:
    """Check some rows.

    Args:
        ids: the rows.
        labels: int32, shape (tokens,); None if masks say which tokens carry a loss, or if this is unknown.
        trained: which tokens carry a loss, bool, shape (tokens,); None if unknown.
        expectations: what correct rows look like.
        packs: the sequences in the rows, if these are packs; each sequence is then checked like a row.
    """
    offsets = ids.offsets if packs is None else packs.offsets
    batch = batch_of(ids.values, offsets, trained, expectations, packs)
    found: dict[str, Fault] = {}

    def note(rule: str, starts: Offsets, stops: Offsets) -> None:
        if len(starts):
            order = np.argsort(starts, kind="stable")
            starts, stops = starts[order], stops[order]
            # No token belongs to an empty row; its place is the start of the next one.
            sequences = np.searchsorted(offsets, starts, side="right") - 1
            rows = sequences if packs is None else packs.rows[sequences]
            found[rule] = Fault(rows, sequences, starts - ids.offsets[rows], stops - ids.offsets[rows])

    if labels is not None:
        wrong = labels != ids.values
        wrong &= labels != IGNORE_INDEX if trained is None else trained
        different = np.flatnonzero(wrong)
        note(findings.LABELS_DIFFER, different, different + 1)
    outside = batch.positions_of(HOLE)
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
        header_tokens = trained_headers(batch, batch.runs, chats, misplaced)
        note(findings.HEADER_TRAINED, header_tokens, header_tokens + 1)
        mismatched = mismatched_prompts(batch, batch.runs, chats, header_tokens)
        note(findings.PROMPT_MISMATCH, mismatched, mismatched + 1)
        untrained = untrained_rows(batch, batch.runs)
        if len(untrained):
            rows = untrained if packs is None else packs.rows[untrained]
            begin = ids.offsets[rows]
            found[findings.NO_TRAINED_TOKEN] = Fault(
                rows, untrained, offsets[untrained] - begin, offsets[untrained + 1] - begin
            )
    return found if packs is None else {**_pack_faults(ids, packs, trained), **_reliable_faults(found, packs)}


def _reliable_faults(found: Faults, packs: PackBoundaries) -> Faults:
    """Leave out faults that depend on where sequences begin, in packs where that is unknown."""
    if not packs.mismatched.any():
        return found
    kept = {
        rule: each if rule in _TOKEN_RULES else each.keep(~packs.mismatched[each.rows]) for rule, each in found.items()
    }
    return {rule: each for rule, each in kept.items() if len(each.rows)}


def _pack_faults(ids: Ragged, packs: PackBoundaries, trained: Mask | None) -> Faults:
    """Faults of the packs themselves."""
    found = {}
    for rule, which in ((findings.SEQ_LENGTHS_MISMATCH, packs.mismatched), (findings.PACK_TOO_LONG, packs.too_long)):
        rows = np.flatnonzero(which)
        if len(rows):
            found[rule] = Fault(
                rows, np.searchsorted(packs.rows, rows), np.zeros(len(rows), np.int64), ids.lengths[rows]
            )
    if trained is not None:
        # The first token of a pack has no predecessor, so nothing predicts it.
        later = np.flatnonzero(packs.numbers > 0)
        later = later[trained[packs.offsets[later]]]
        if len(later):
            rows = packs.rows[later]
            starts = packs.offsets[later] - ids.offsets[rows]
            found[findings.FIRST_TOKEN_TRAINED] = Fault(rows, later, starts, starts + 1)
    return found
