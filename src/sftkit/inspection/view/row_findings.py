"""What the audit finds in one row, and in which of its turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sftkit.audit.checks.packs import PackBoundaries
from sftkit.audit.checks.row_checks import check_row
from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.findings import ANSWER_CUT, BOS_MISSING, HEADER_TRAINED, NO_TRAINED_TOKEN, PACK_RULES, RULES
from sftkit.core.rows import Ids, Mask
from sftkit.inspection.view.turns import Turn

_SEQUENCE_RULES = frozenset({NO_TRAINED_TOKEN, BOS_MISSING})

WHOLE_ROW_RULES = _SEQUENCE_RULES | PACK_RULES
"""Rules about a row, a pack or a sequence as a whole, rather than about some of its tokens."""


@dataclass(frozen=True, slots=True)
class RowFinding:
    """A rule that a row breaks."""

    rule: str
    level: str
    """`error` or `warning`."""
    start: int
    """First token; the finding is about tokens [start, stop) of the row."""
    stop: int
    turn: int | None = None
    """Index of the turn with these tokens; None when the finding is about the whole row."""


def find_in_row(
    ids: Ids, labels: Ids | None, trained: Mask | None, packs: PackBoundaries | None, expectations: Expectations
) -> list[RowFinding]:
    """Return what is wrong with a row, in token order.

    Args:
        ids: its tokens.
        labels: shape (tokens,); None when there are no labels.
        trained: which tokens carry a loss, shape (tokens,); None when unknown.
        packs: its sequences, if it is a pack.
        expectations: what correct rows look like.
    """
    broken = check_row(ids, labels, trained, expectations, packs)
    found = [RowFinding(rule, RULES[rule].level, start, stop) for rule, start, stop in broken]
    if trained is None:
        return found
    return [
        replace(each, stop=_trained_header_stop(ids, trained, each, expectations))
        if each.rule == HEADER_TRAINED
        else each
        for each in found
    ]


def _trained_header_stop(ids: Ids, trained: Mask, finding: RowFinding, expectations: Expectations) -> int:
    """Return the end of the trained tokens of the header that a finding is in; the audit gives their first one only."""
    stop = finding.stop
    for header in (*expectations.prompts, *expectations.headers):
        for first in range(max(0, finding.start - len(header) + 1), finding.start + 1):
            if tuple(ids[first : first + len(header)].tolist()) == tuple(header):
                stop = max(stop, first + len(header))
    untrained = np.flatnonzero(~trained[finding.start : stop])
    return max(finding.stop, finding.start + int(untrained[0])) if len(untrained) else stop


def assign_turns(findings: Sequence[RowFinding], turns: Sequence[Turn], *, packed: bool) -> tuple[RowFinding, ...]:
    """Set the turn of each finding, and merge adjacent findings of one rule in one turn.

    Args:
        findings: the findings of a row.
        turns: its turns.
        packed: whether it is a pack; findings about a whole sequence are then assigned to its first turn.
    """
    return tuple(_merge_adjacent([_with_turn(finding, turns, packed=packed) for finding in findings]))


def _with_turn(finding: RowFinding, turns: Sequence[Turn], *, packed: bool) -> RowFinding:
    if finding.rule in PACK_RULES or (finding.rule in _SEQUENCE_RULES and not packed):
        return finding
    # A cut answer is missing its end, so the finding belongs to the turn of its last token.
    token = finding.stop - 1 if finding.rule == ANSWER_CUT else finding.start
    number = next((number for number, turn in enumerate(turns) if turn.start <= token < turn.stop), None)
    return replace(finding, turn=number)


def _merge_adjacent(findings: Sequence[RowFinding]) -> Iterator[RowFinding]:
    """Yield the merged findings in token order, and at one token in the order of the rules."""
    merged: list[RowFinding] = []
    for finding in sorted(findings, key=lambda item: (item.rule, item.start)):
        last = merged[-1] if merged else None
        if last is not None and (last.rule, last.turn, last.stop) == (finding.rule, finding.turn, finding.start):
            merged[-1] = replace(last, stop=finding.stop)
        else:
            merged.append(finding)
    names = list(RULES)
    yield from sorted(merged, key=lambda item: (item.start, names.index(item.rule)))
