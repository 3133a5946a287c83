"""What the audit found, on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.text import Text

from sftkit.audit.findings import RULES
from sftkit.console.lines import level_style, print_text
from sftkit.inspection.visible import one_line


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


def print_findings(rows: int, findings: Sequence[Found], console: Console) -> None:
    """Each finding: how many rows, what is wrong, which ones, what to do."""
    if not findings:
        print_text(console, Text(f"audit: {_rows(rows)} checked, nothing found"))
        return
    print_text(console, Text(f"audit: {_rows(rows)} checked"))
    for found in findings:
        rule = RULES.get(found.rule)
        rows_named = f"{found.rows:,} row{'s' if found.rows > 1 else ''}"
        title = Text(f"{found.level}: {found.rule}, {rows_named}", level_style(found.level))
        if rule is not None:
            title.append(f": {rule.what}")
        print_text(console, title, indent=2)
        more = ", ..." if found.rows > len(found.examples) else ""
        print_text(console, Text(f"in {', '.join(map(one_line, found.examples))}{more}", "dim"), indent=4)
        if rule is not None:
            print_text(console, Text(rule.advice), indent=4)


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"
