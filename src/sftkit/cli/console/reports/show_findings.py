"""Prints the findings of an audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.text import Text

from sftkit.audit.findings import PACK_RULES, RULES
from sftkit.cli.console.text_lines import level_style, print_text
from sftkit.core.escape import escape_to_one_line
from sftkit.inspection.audit.inference.audit_inference import InferenceAudit


class FindingLike(Protocol):
    """A finding, from a manifest or from an audit."""

    @property
    def rule(self) -> str:
        """Name of the rule."""

    @property
    def level(self) -> str:
        """`error` or `warning`."""

    @property
    def rows(self) -> int:
        """Number of rows that break the rule."""

    @property
    def examples(self) -> tuple[str, ...]:
        """References to the first of these rows."""


def print_findings(rows: int, findings: Sequence[FindingLike], console: Console, sequences: int | None = None) -> None:
    """Print each finding: how many rows, what is wrong, the first rows, and what to do.

    Args:
        rows: how many rows were checked.
        findings: the findings.
        console: where to print.
        sequences: how many sequences the rows hold if they are packs; findings then count sequences.
    """
    checked = _count(rows, "row") if sequences is None else f"{_count(sequences, 'sequence')} in {_count(rows, 'pack')}"
    if not findings:
        print_text(console, Text(f"audit: {checked} checked, nothing found"))
        return
    print_text(console, Text(f"audit: {checked} checked"))
    for found in findings:
        rule = RULES.get(found.rule)
        unit = "row" if sequences is None else "pack" if found.rule in PACK_RULES else "sequence"
        title = Text(f"{found.level}: {found.rule}, {_count(found.rows, unit)}", level_style(found.level))
        if rule is not None:
            title.append(f": {rule.description}")
        print_text(console, title, indent=2)
        more = ", ..." if found.rows > len(found.examples) else ""
        print_text(console, Text(f"in {', '.join(map(escape_to_one_line, found.examples))}{more}", "dim"), indent=4)
        if rule is not None:
            print_text(console, Text(rule.advice), indent=4)


def print_inference(found: InferenceAudit, console: Console, unit: str) -> None:
    """Print how many rows were compared with the tokens of inference, where they differ, and which were not compared.

    Args:
        found: the comparison.
        console: where to print.
        unit: what is counted: `row`, or `sequence` in packs.
    """
    parts = [f"{_count(found.verified, unit)} verified against apply_chat_template"]
    if found.different:
        parts.append(f"{_count(found.different, unit)} {'differs' if found.different == 1 else 'differ'}")
    parts += [f"{_count(count, unit)} not checked: {reason}" for reason, count in found.unchecked.items()]
    print_text(console, Text(f"inference: {escape_to_one_line('; '.join(parts))}"))
    for each in found.differences:
        expected = "the turn has ended" if each.expected is None else repr(each.expected)
        line = (
            f"{each.row}: from token {each.token}, of message {each.message}: {each.found!r}; at inference: {expected}"
        )
        print_text(console, Text(escape_to_one_line(line)), indent=2)


def _count(count: int, unit: str) -> str:
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"
