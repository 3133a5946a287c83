"""What the audit finds in one row, and in which of its turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sftkit.audit.checks.packs import PackBoundaries
from sftkit.audit.checks.row_checks import check_row
from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.findings import ANSWER_CUT, BOS_MISSING, NO_TRAINED_TOKEN, PACK_RULES, RULES
from sftkit.core.rows import Ids, Mask
from sftkit.inspection.view.turns import Turn

_OF_SEQUENCES = frozenset({NO_TRAINED_TOKEN, BOS_MISSING})

WHOLE_ROW_RULES = _OF_SEQUENCES | PACK_RULES
"""Rules that say something about a row (a pack, a sequence of a pack), not about tokens that are there."""


@dataclass(frozen=True, slots=True)
class RowFinding:
    """A rule that a row breaks.

    level: error or warning. start, stop: the tokens that it is about, [start, stop) of the row. turn: the number of the
    turn that they are in, from 0; None where it is about the whole row.
    """

    rule: str
    level: str
    start: int
    stop: int
    turn: int | None = None


def find_in_row(
    ids: Ids, labels: Ids | None, trained: Mask | None, packs: PackBoundaries | None, norms: Expectations
) -> list[RowFinding]:
    """What is wrong with a row, in the order of the tokens.

    Args:
        ids: its tokens.
        labels: shape (tokens,); None where masks say what carries a loss, or nothing.
        trained: which tokens carry a loss, shape (tokens,); None when unknown.
        packs: the sequences that share it, where it is a pack.
        norms: what right rows look like.
    """
    broken = check_row(ids, labels, trained, norms, packs)
    return [RowFinding(rule, RULES[rule].level, start, stop) for rule, start, stop in broken]


def assign_turns(findings: Sequence[RowFinding], turns: Sequence[Turn], *, packed: bool) -> tuple[RowFinding, ...]:
    """Findings with the turns that they are in; of one rule, those side by side in one turn become one.

    packed: what is about a whole sequence then stands in its first turn.
    """
    return tuple(_joined([_placed(finding, turns, packed=packed) for finding in findings]))


def _placed(finding: RowFinding, turns: Sequence[Turn], *, packed: bool) -> RowFinding:
    if finding.rule in PACK_RULES or (finding.rule in _OF_SEQUENCES and not packed):
        return finding
    # What is cut is the end of an answer.
    token = finding.stop - 1 if finding.rule == ANSWER_CUT else finding.start
    number = next((number for number, turn in enumerate(turns) if turn.start <= token < turn.stop), None)
    return replace(finding, turn=number)


def _joined(findings: Sequence[RowFinding]) -> Iterator[RowFinding]:
    order = sorted(findings, key=lambda each: (each.rule, each.start))
    joined: list[RowFinding] = []
    for finding in order:
        last = joined[-1] if joined else None
        if last is not None and (last.rule, last.turn, last.stop) == (finding.rule, finding.turn, finding.start):
            joined[-1] = replace(last, stop=finding.stop)
        else:
            joined.append(finding)
    names = list(RULES)
    yield from sorted(joined, key=lambda each: (each.start, names.index(each.rule)))
