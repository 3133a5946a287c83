"""Faults of many batches -> findings: rows counted by rule, the first of them named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sftkit.audit.findings import EXAMPLES, RULES, Finding


@dataclass(frozen=True)
class Count:
    """Rows that break a rule: how many, and the names of the first of them."""

    rows: int
    examples: tuple[str, ...]


Counts = Mapping[str, Count]
"""By the names of rules."""


def merged(parts: Iterable[Counts]) -> dict[str, Count]:
    """The counts of several parts, which come in the order of the rows, together."""
    rows: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    for part in parts:
        for rule, count in part.items():
            rows[rule] = rows.get(rule, 0) + count.rows
            named = examples.setdefault(rule, [])
            named.extend(count.examples[: EXAMPLES - len(named)])
    return {rule: Count(rows[rule], tuple(examples[rule])) for rule in rows}


def findings_of(counts: Counts) -> tuple[Finding, ...]:
    """The findings of some counts, in the order of the rules: errors first."""
    found: Sequence[tuple[str, Count]] = [(name, counts[name]) for name in RULES if name in counts]
    return tuple(Finding(name, RULES[name].level, each.rows, each.examples) for name, each in found if each.rows)
