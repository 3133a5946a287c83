"""What the audit found, on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.text import Text

from sftkit.audit.findings import PACK_RULES, RULES
from sftkit.cli.console.text_lines import level_style, print_text
from sftkit.core.escape import escape_to_one_line


class Found(Protocol):
    """A finding, of a manifest or of an audit just made."""

    @property
    def rule(self) -> str:
        """Its name."""

    @property
    def level(self) -> str:
        """error or warning."""

    @property
    def rows(self) -> int:
        """How many rows break it."""

    @property
    def examples(self) -> tuple[str, ...]:
        """The first of them."""


def print_findings(rows: int, findings: Sequence[Found], console: Console, sequences: int | None = None) -> None:
    """Each finding: how many rows, what is wrong, which ones, what to do.

    Args:
        rows: how many were checked.
        findings: what was found.
        console: where.
        sequences: how many share the rows, where these are packs; findings then count sequences.
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


def _count(count: int, unit: str) -> str:
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"
